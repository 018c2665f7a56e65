"""Archives: read where they lie, never unpacked; what is missing or cut off is named."""

import io
import random
import tarfile
from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_training.data.archives import files_of, find_place, read_members


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, contents in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return path


def test_archive_and_folder_give_the_same(tmp_path: Path) -> None:
    """The files of a .tar.gz and of the folder it unpacks to are the same bytes."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.bin").write_bytes(b"1")
    archive = write_archive(tmp_path / "f.tar.gz", {"f/a.bin": b"1", "f/b.bin": b"2"})
    assert read_members(tmp_path / "f", ["a.bin"]) == read_members(archive, ["a.bin"])
    assert files_of(archive, ["a.bin"]) == [archive]
    assert files_of(tmp_path / "f", ["a.bin"]) == [tmp_path / "f" / "a.bin"]


def test_nothing_is_written_wherever_a_member_points(tmp_path: Path) -> None:
    """A member that names a path outside is read as bytes and written nowhere."""
    archive = write_archive(tmp_path / "evil.tar.gz", {"../../a.bin": b"1"})
    before = sorted(tmp_path.parent.rglob("*"))
    assert read_members(archive, ["a.bin"]) == {"a.bin": b"1"}
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_link_in_an_archive_is_no_file(tmp_path: Path) -> None:
    """A symbolic link with a wanted name is passed over, not followed."""
    with tarfile.open(tmp_path / "l.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("a.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with pytest.raises(BadInput, match=r"expected the file\(s\) a\.bin in there"):
        read_members(tmp_path / "l.tar.gz", ["a.bin"])


@pytest.mark.parametrize("cut", [10, 600])
def test_archive_that_is_cut_off_is_named(tmp_path: Path, cut: int) -> None:
    """Half a download is refused by its name, wherever it breaks off."""
    contents = random.Random(0).randbytes(2_000)  # noqa: S311 - only to be incompressible
    whole = write_archive(tmp_path / "a.tar", {"a.bin": contents}).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[:cut])
    with pytest.raises(BadInput, match=r"a\.tar\.gz: "):
        read_members(tmp_path / "a.tar.gz", ["a.bin"])


def test_other_bytes_are_no_archive(tmp_path: Path) -> None:
    """A page of text under the archive's name is refused."""
    (tmp_path / "a.tar.gz").write_text("<html>404</html>" * 100)
    with pytest.raises(BadInput, match="cannot be read as a tar archive"):
        read_members(tmp_path / "a.tar.gz", ["a.bin"])


def test_place_is_the_file_or_the_folder_that_holds_one(tmp_path: Path) -> None:
    """An archive, its folder, and the folder above it are all understood; an empty one is not."""
    archive = write_archive(tmp_path / "f.tar.gz", {"f/a.bin": b"1"})
    (tmp_path / "f").mkdir()
    assert find_place(tmp_path, "f", ["a.bin"]) is None
    (tmp_path / "f" / "a.bin").write_bytes(b"1")
    assert find_place(archive, "f", ["a.bin"]) == archive
    assert find_place(tmp_path, "f", ["a.bin"]) == tmp_path / "f"
    assert find_place(tmp_path / "f", "f", ["a.bin"]) == tmp_path / "f"
