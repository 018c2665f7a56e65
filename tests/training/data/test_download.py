"""Downloads: only what has the published checksum gets its name; otherwise one clear message."""

import functools
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_training.data.download import fetch_files, find_file, folder_of
from amiss_training.data.named import RemoteFile

CONTENTS = b"what the publisher has"
MD5 = "md5:" + hashlib.md5(CONTENTS, usedforsecurity=False).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENTS).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not write to the terminal."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a loopback server with one file, a.gz."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    (served / "a.gz").write_bytes(CONTENTS)
    handler = functools.partial(Quiet, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/a.gz"
        server.shutdown()
        thread.join()


@pytest.fixture
def nowhere() -> str:
    """An address on this machine that nothing listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/a.gz"


@pytest.mark.parametrize("checksum", [MD5, SHA256])
def test_what_is_absent_is_downloaded(tmp_path: Path, url: str, checksum: str) -> None:
    """With the right checksum the file arrives under its name and nothing else is left."""
    folder = tmp_path / "new" / "set"
    (path,) = fetch_files("set", folder, [RemoteFile("a.gz", url, checksum)])
    assert path == folder / "a.gz"
    assert path.read_bytes() == CONTENTS
    assert list(folder.iterdir()) == [path]


def test_wrong_checksum_leaves_no_file(tmp_path: Path, url: str) -> None:
    """What has another checksum is refused, naming file and address, and is not kept."""
    wrong = RemoteFile("a.gz", url, "md5:" + "0" * 32)
    with pytest.raises(BadInput, match=r"checksum is another; put the file here: .*a\.gz") as no:
        fetch_files("set", tmp_path / "set", [wrong])
    assert url in str(no.value)
    assert list((tmp_path / "set").iterdir()) == []


def test_unreachable_server_names_every_file(tmp_path: Path, nowhere: str) -> None:
    """Without a network the message names all absent files, where from, and both forms of each."""
    files = [RemoteFile(name, nowhere, MD5) for name in ("a.gz", "b.gz", "c.mat")]
    (tmp_path / "b").write_bytes(b"there already, unzipped")
    with pytest.raises(BadInput, match=r"a\.gz could not be downloaded \(ConnectionError\)") as no:
        fetch_files("set", tmp_path, files)
    message = str(no.value)
    assert f"put the file here: {tmp_path / 'a.gz'} or a (from {nowhere})" in message
    assert f"{tmp_path / 'c.mat'} (from" in message
    assert "b.gz" not in message


def test_missing_page_is_no_file(tmp_path: Path, url: str) -> None:
    """An error page of the server is not taken for the file."""
    with pytest.raises(BadInput, match="could not be downloaded \\(HTTPError\\)"):
        fetch_files("set", tmp_path / "set", [RemoteFile("a.gz", url + "x", MD5)])


def test_file_without_known_checksum_is_never_downloaded(tmp_path: Path, url: str) -> None:
    """No checksum, no download, although the server has the file."""
    with pytest.raises(BadInput, match="no published checksum"):
        fetch_files("set", tmp_path / "set", [RemoteFile("a.gz", url, None)])


@pytest.mark.parametrize("name", ["a.gz", "a"])
def test_what_is_there_is_taken_as_it_is(tmp_path: Path, nowhere: str, name: str) -> None:
    """A file that lies there, gzipped or not, is used without a network and without a checksum."""
    (tmp_path / name).write_bytes(b"an excerpt")
    file = RemoteFile("a.gz", nowhere, None)
    assert fetch_files("set", tmp_path, [file]) == [tmp_path / name]
    assert find_file(tmp_path, file) == tmp_path / name


def test_foreign_folder_is_left_alone(tmp_path: Path, url: str) -> None:
    """Nothing is put into a folder of other things; beside a sibling it is."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    (folder / "beach.png").write_bytes(b"")
    file, sibling = RemoteFile("a.gz", url, MD5), RemoteFile("a_64.gz", url, MD5)
    with pytest.raises(BadInput, match="none of its files lies in"):
        fetch_files("set", folder, [file])
    (folder / "a_64.gz").write_bytes(b"")
    assert fetch_files("set", folder, [file], siblings=[sibling]) == [folder / "a.gz"]


def test_file_where_a_folder_belongs_is_refused(tmp_path: Path, url: str) -> None:
    """A path to one file of a set of several is refused by name."""
    (tmp_path / "x.mat").write_bytes(b"")
    with pytest.raises(BadInput, match="expected the folder of its files, got a file"):
        fetch_files("set", tmp_path / "x.mat", [RemoteFile("a.gz", url, MD5)])


@pytest.mark.parametrize("name", ["a.gz", "a"])
def test_a_file_that_is_not_there_becomes_no_folder(tmp_path: Path, url: str, name: str) -> None:
    """A mistyped path to one of the files is refused, and nothing of its name is made."""
    with pytest.raises(BadInput, match="there is no file"):
        fetch_files("set", tmp_path / name, [RemoteFile("a.gz", url, MD5)])
    assert not (tmp_path / name).exists()


def test_folder_is_the_path_else_the_environment_else_data() -> None:
    """The path wins over $AMISS_DATA, which wins over ./data."""
    assert folder_of("mnist", Path("p"), {"AMISS_DATA": "/d"}) == Path("p")
    assert folder_of("mnist", None, {"AMISS_DATA": "/d"}) == Path("/d/mnist")
    assert folder_of("mnist", None, {}) == Path("data/mnist")
