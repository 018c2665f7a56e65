"""Files as bytes: opened whether gzipped or not, recognised by what is in them, hashed."""

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

from amiss_export.errors import BadInput

Kind = Literal["text", "parquet", "npz", "mat", "idx", "image"]

_GZIP = b"\x1f\x8b"
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
_REFUSED = {
    b"\x93NUMPY": "a bare .npy array; save it with numpy.savez(file, X=...) as .npz",
    b"\x80": "a pickle, which is never loaded; save the data as CSV, Parquet or NPZ",
    b"\x89HDF": "HDF5 (MATLAB v7.3); save it in MATLAB with -v7, or as NPZ",
    b"MATLAB 7.3": "HDF5 (MATLAB v7.3); save it in MATLAB with -v7, or as NPZ",
}


def check_exists(path: Path) -> Path:
    """The path itself, when something is there."""
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder")
    return path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what can go wrong while a file is read into BadInput naming the file."""
    try:
        yield
    except EOFError as error:
        raise BadInput(f"{path}: the file is cut off: {error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text, got {error}") from error
    except (OSError, zlib.error) as error:
        cut_off = "truncated" in str(error).lower()
        reason = "the file is cut off" if cut_off else "cannot be read"
        raise BadInput(f"{path}: {reason}: {error}") from error


def is_gzipped(path: Path) -> bool:
    """Whether the file starts as gzip does, whatever its name says."""
    with reading(path), path.open("rb") as stream:
        return stream.read(2) == _GZIP


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes as a stream, unzipped on the way when they are gzipped."""
    opener = gzip.open if is_gzipped(path) else open
    with reading(path), opener(path, "rb") as stream:
        yield cast(BinaryIO, stream)


def kind_of(path: Path) -> Kind:
    """What the file holds, told by its first bytes; raises BadInput for what is never read."""
    with open_plain(path) as stream:
        start = stream.read(4096)
    if not start:
        raise BadInput(f"{path}: the file is empty")
    for magic, reason in _REFUSED.items():
        if start.startswith(magic):
            raise BadInput(f"{path}: this is {reason}")
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK"):
        return "npz"
    if start.startswith(b"MATLAB") or path.suffix.lower() == ".mat":
        return "mat"
    if start[:3] == b"\x00\x00\x08":
        return "idx"
    if start.startswith(_IMAGE_STARTS) and b"\x00" in start:
        return "image"
    if b"\x00" in start:
        raise BadInput(
            f"{path}: expected CSV, Parquet, NPZ, .mat or IDX, got bytes of an unknown format"
        )
    return "text"


def sha256_of(paths: Iterable[Path], *, root: Path | None = None) -> str:
    """sha256 of the files' bytes as stored; with a root, of their relative names too."""
    digest = hashlib.sha256()
    for path in paths:
        if root is not None:
            digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        with reading(path), path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
