"""Files: recognised by content, opened whether gzipped or not, never unpickled."""

import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from amiss_export.errors import BadInput
from amiss_training.data.files import kind_of, open_plain, sha256_of


def test_kind_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    """A gzipped CSV named .dat is text, and an NPZ named .csv is an NPZ."""
    text, arrays = tmp_path / "a.dat", tmp_path / "b.csv"
    text.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with arrays.open("wb") as stream:
        np.savez(stream, X=np.zeros((2, 2)))
    assert (kind_of(text), kind_of(arrays)) == ("text", "npz")


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (pickle.dumps([1]), "pickle"),
        (b"\x93NUMPY\x01\x00", "savez"),
        (b"\x89HDF\r\n\x1a\n", "-v7"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "-v7"),
        (b"\x7fELF\x00\x00", "unknown format"),
    ],
)
def test_what_is_never_read_is_refused_by_name(
    tmp_path: Path, contents: bytes, reason: str
) -> None:
    """Pickles, HDF5, bare arrays, empty and unknown files are refused with file and reason."""
    path = tmp_path / "data.bin"
    path.write_bytes(contents)
    with pytest.raises(BadInput, match=reason) as refusal:
        kind_of(path)
    assert str(path) in str(refusal.value)


def test_truncated_gzip_is_cut_off(tmp_path: Path) -> None:
    """A gzip file that ends early is called cut off instead of being read as shorter."""
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 100)[:-20])
    with pytest.raises(BadInput, match="cut off"), open_plain(path) as stream:
        stream.read()


def test_hash_is_of_the_stored_bytes(tmp_path: Path) -> None:
    """The data hash of one file is what sha256sum prints for it."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n1\n")
    assert sha256_of([path]) == hashlib.sha256(b"a\n1\n").hexdigest()


def test_hash_of_a_folder_knows_names(tmp_path: Path) -> None:
    """Renaming a file in a folder changes the folder's hash: its name is its label."""
    before, after = tmp_path / "a", tmp_path / "b"
    before.write_bytes(b"x")
    first = sha256_of([before], root=tmp_path)
    before.rename(after)
    assert sha256_of([after], root=tmp_path) != first
