"""STL-10: columns first, labels from 1; both undone."""

from pathlib import Path

import numpy as np
import pytest

from amiss_export.errors import BadInput
from amiss_training.data.stl10 import read_stl10

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 96, 96), dtype=np.uint8)


def write_stl10(folder: Path) -> Path:
    """Each channel is stored column by column, as MATLAB does (the data set's page)."""
    for name, rows, labels in (("train", [0, 1], [1, 10]), ("test", [2], [7])):
        columns = b"".join(np.asfortranarray(c).tobytes("F") for i in rows for c in IMAGES[i])
        (folder / f"{name}_X.bin").write_bytes(columns)
        (folder / f"{name}_y.bin").write_bytes(bytes(labels))
    return folder


def test_images_stand_upright(tmp_path: Path) -> None:
    """Pixels come back row by row, labels 1 to 10 as 0 to 9."""
    train, test = read_stl10(write_stl10(tmp_path))
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]), IMAGES)
    assert (train.label.tolist(), test.label.tolist()) == (["0", "9"], ["6"])


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("train_X.bin", b"\x00" * 27_647, "images of 27648 bytes, got 27647"),
        ("train_X.bin", b"", "images of 27648 bytes, got 0"),
        ("train_y.bin", bytes([1, 11]), "labels 1 to 10, got 1 to 11"),
        ("train_y.bin", bytes([0, 1]), "labels 1 to 10, got 0 to 1"),
        ("train_y.bin", b"\x01", "one label for each train image"),
        ("train_y.bin", b"", "one label for each train image"),
    ],
)
def test_malformed_files_are_named(
    tmp_path: Path, name: str, contents: bytes, message: str
) -> None:
    """Images that are cut off and labels that do not fit are refused."""
    (write_stl10(tmp_path) / name).write_bytes(contents)
    with pytest.raises(BadInput, match=message):
        read_stl10(tmp_path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A folder without the test images says which file it lacks."""
    (write_stl10(tmp_path) / "test_X.bin").unlink()
    with pytest.raises(BadInput, match=r"expected the file\(s\) test_X\.bin"):
        read_stl10(tmp_path)
