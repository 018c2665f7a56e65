"""IDX: sizes checked to the byte, labels found by name."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from amiss_export.errors import BadInput
from amiss_training.data import idx

IMAGES = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 4)


def idx_bytes(array: np.ndarray) -> bytes:
    """The array as IDX: 00 00 08 ndim, big-endian sizes, bytes (yann.lecun.com/exdb/mnist)."""
    return (
        b"\x00\x00\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def write_pair(folder: Path) -> Path:
    images = folder / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(idx_bytes(IMAGES)))
    labels = idx_bytes(np.array([3, 1, 4, 1, 5], dtype=np.uint8))
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    return images


def test_pair_is_read(tmp_path: Path) -> None:
    """Images come back bit for bit, labels as text, one gzipped and one plain."""
    images = write_pair(tmp_path)
    np.testing.assert_array_equal(idx.read_images(images), IMAGES)
    labels = idx.find_labels(images)
    assert labels is not None
    assert idx.read_labels(labels, rows=5).tolist() == ["3", "1", "4", "1", "5"]


def test_folder_names_its_images(tmp_path: Path) -> None:
    """The one file of images in a folder is found; two are refused by name; none is None."""
    assert idx.find_images(tmp_path) is None
    images = write_pair(tmp_path)
    assert idx.find_images(tmp_path) == images
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES))
    with pytest.raises(BadInput, match=r"t10k-images-idx3-ubyte, train-images.*name one"):
        idx.find_images(tmp_path)


def test_images_stream_in_chunks(tmp_path: Path) -> None:
    """Chunks together are the file."""
    chunks = list(idx.iter_images(write_pair(tmp_path), 2))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(chunks), IMAGES)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"\x00\x00\x0d\x03" + b"\x00" * 12, "expected an IDX file of bytes"),
        (b"\x03\x08\x00\x00", "expected an IDX file of bytes"),
        (b"\x00\x00\x08\x03\x00\x00", "cut off in its header"),
        (idx_bytes(IMAGES)[:-1], "announces 1 bytes more"),
        (idx_bytes(IMAGES) + b"\x00", "beyond the"),
        (idx_bytes(IMAGES[:0]), "at least one item"),
        (idx_bytes(IMAGES[0, 0]), "name the images, not the labels"),
        (gzip.compress(idx_bytes(IMAGES))[:-12], "cut off"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "cut off"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, contents: bytes, message: str) -> None:
    """Wrong magic, sizes that do not fit the bytes and cut-off files are refused."""
    path = tmp_path / "x-images-idx3-ubyte"
    path.write_bytes(contents)
    with pytest.raises(BadInput, match=message) as refusal:
        idx.read_images(path)
    assert str(path) in str(refusal.value)


def test_labels_must_match_the_images(tmp_path: Path) -> None:
    """One label too few is refused with both counts."""
    labels = idx.find_labels(write_pair(tmp_path))
    assert labels is not None
    with pytest.raises(BadInput, match=r"each of 6 images, got \(5,\)"):
        idx.read_labels(labels, rows=6)
