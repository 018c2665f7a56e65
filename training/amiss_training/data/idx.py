"""IDX files, as MNIST comes: big-endian sizes, then bytes; plain or gzipped."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.data.files import kind_of, open_plain

_UINT8 = 0x08
_BLOCK_BYTES = 16 << 20
_SUFFIXES = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz")


def find_images(folder: Path) -> Path | None:
    """The one file of IDX images in the folder, None without; BadInput when there are several."""
    found = [path for path in _idx_files(folder) if "label" not in path.name.lower()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BadInput(f"{folder}: several files of IDX images ({names}); name one of them")
    return found[0] if found else None


def find_labels(images: Path) -> Path | None:
    """The labels that belong to the images, by name: images-idx3 -> labels-idx1; None without."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    stem = name.removesuffix(".gz")
    for candidate in (images.with_name(stem), images.with_name(f"{stem}.gz")):
        if candidate != images and candidate.is_file():
            return candidate
    return None


def read_images(path: Path) -> NDArray[np.uint8]:
    """All images of the file, uint8 (n, ...)."""
    return np.concatenate(list(iter_images(path, 1 << 30)))


def iter_images(path: Path, chunk_rows: int) -> Iterator[NDArray[np.uint8]]:
    """Images in chunks, uint8 (up to chunk_rows, ...); BadInput when the file is cut off."""
    with open_plain(path) as stream:
        shape = _read_header(stream, path)
        if len(shape) < 3:
            raise BadInput(
                f"{path}: expected IDX images in 3 or 4 dimensions, got {len(shape)}; "
                "name the images, not the labels"
            )
        for start in range(0, shape[0], chunk_rows):
            rows = min(chunk_rows, shape[0] - start)
            yield _read_rows(stream, path, (rows, *shape[1:]))
        _expect_end(stream, path, shape)


def read_labels(path: Path, *, rows: int) -> NDArray[np.str_]:
    """The labels as text, (rows,); BadInput when there are more or fewer."""
    with open_plain(path) as stream:
        shape = _read_header(stream, path)
        if shape != (rows,):
            raise BadInput(f"{path}: expected one label for each of {rows} images, got {shape}")
        labels = _read_rows(stream, path, shape)
        _expect_end(stream, path, shape)
    return labels.astype(np.str_)


def _idx_files(folder: Path) -> list[Path]:
    candidates = sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(_SUFFIXES))
    return [path for path in candidates if kind_of(path) == "idx"]


def _read_header(stream: BinaryIO, path: Path) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\x00\x00" or magic[2] != _UINT8 or not 1 <= magic[3] <= 4:
        raise BadInput(
            f"{path}: expected an IDX file of bytes (it starts 00 00 08 and 01 to 04), "
            f"got {magic.hex(' ') or 'nothing'}"
        )
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise BadInput(f"{path}: the file is cut off in its header")
    shape: tuple[int, ...] = struct.unpack(f">{magic[3]}I", sizes)
    if 0 in shape:
        raise BadInput(f"{path}: expected at least one item, got the sizes {shape}")
    return shape


def _read_rows(stream: BinaryIO, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    wanted = int(np.prod(shape, dtype=object))
    data = bytearray()  # block by block: a header that lies must not claim the memory
    while len(data) < wanted and (block := stream.read(min(_BLOCK_BYTES, wanted - len(data)))):
        data += block
    if len(data) < wanted:
        raise BadInput(
            f"{path}: the file is cut off: its header announces {wanted - len(data)} bytes more"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _expect_end(stream: BinaryIO, path: Path, shape: tuple[int, ...]) -> None:
    if stream.read(1):
        raise BadInput(f"{path}: there are bytes beyond the {shape} that the header announces")
