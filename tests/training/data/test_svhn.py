"""SVHN: MATLAB files with the image number last, and 10 for the digit 0."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from amiss_export.errors import BadInput
from amiss_training.data.svhn import read_svhn

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)


def write_svhn(path: Path, images: Any = IMAGES, labels: Any = ((1,), (10,), (9,))) -> Path:
    """X (32, 32, 3, n) and y (n, 1), compressed, as the published files are."""
    savemat(
        path,
        {"X": images.transpose(2, 3, 1, 0), "y": np.array(labels, dtype=np.uint8)},
        do_compression=True,
    )
    return path


def test_digit_zero_is_ten(tmp_path: Path) -> None:
    """Images come back channels first, and label 10 as 0."""
    (test,) = read_svhn([write_svhn(tmp_path / "test_32x32.mat")])
    np.testing.assert_array_equal(test.images, IMAGES)
    assert (test.name, test.label.tolist()) == ("test", ["1", "0", "9"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "expected arrays named X and y"),
        ({"X": np.zeros((2, 32, 32, 3), np.uint8), "y": [[1]]}, r"uint8 \(32, 32, 3, n\)"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": [[1], [2]]}, "got float64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[0], [2]]}, "labels y from 1 to 10"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1]]}, "one label for each"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    """Missing arrays, other shapes and types, and labels that do not fit are refused."""
    savemat(tmp_path / "train_32x32.mat", arrays)
    with pytest.raises(BadInput, match=message):
        read_svhn([tmp_path / "train_32x32.mat"])


@pytest.mark.parametrize("kept", [50, 200, 2_000])
def test_file_that_is_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    """Half a file is refused by name, wherever it breaks off."""
    path = write_svhn(tmp_path / "train_32x32.mat")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"train_32x32\.mat"):
        read_svhn([path])


@pytest.mark.parametrize("start", [b"\x89HDF\r\n\x1a\n", b"\x80\x04}", b"not a mat file"])
def test_other_bytes_are_refused(tmp_path: Path, start: bytes) -> None:
    """HDF5 (format 1), a pickle and text are no MATLAB v5 files."""
    (tmp_path / "train_32x32.mat").write_bytes(start * 40)
    with pytest.raises(BadInput, match=r"train_32x32\.mat"):
        read_svhn([tmp_path / "train_32x32.mat"])
