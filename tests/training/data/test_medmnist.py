"""MedMNIST: three parts in one npz; several findings become one question."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amiss_export.errors import BadInput
from amiss_training.data.medmnist import nearest_file, read_medmnist
from amiss_training.data.named import NAMED

RNG = np.random.default_rng(0)


def arrays(*, channels: int = 3, findings: int = 1, rows: int = 2) -> dict[str, Any]:
    """What a published file holds: <part>_images and <part>_labels for train, val and test."""
    shape = (rows, 28, 28, 3) if channels == 3 else (rows, 28, 28)
    found: dict[str, Any] = {}
    for part in ("train", "val", "test"):
        found[f"{part}_images"] = RNG.integers(0, 256, shape, dtype=np.uint8)
        found[f"{part}_labels"] = np.zeros((rows, findings), dtype=np.uint8)
    return found


def test_three_parts_are_read(tmp_path: Path) -> None:
    """Train, val and test keep their pixels, channels first, and their labels as text."""
    stored = arrays() | {"val_labels": np.array([[4], [2]], dtype=np.uint8)}
    np.savez_compressed(tmp_path / "p.npz", **stored)
    parts = read_medmnist(tmp_path / "p.npz")
    assert [part.name for part in parts] == ["train", "val", "test"]
    assert parts[1].label.tolist() == ["4", "2"]
    np.testing.assert_array_equal(parts[2].images, np.moveaxis(stored["test_images"], -1, 1))


def test_any_finding_is_a_finding(tmp_path: Path) -> None:
    """Of 14 findings one is enough; none is "no finding"."""
    labels = np.zeros((2, 14), dtype=np.uint8)
    labels[1, 13] = 1
    np.savez(tmp_path / "c.npz", **arrays(channels=1, findings=14) | {"train_labels": labels})
    train = read_medmnist(tmp_path / "c.npz")[0]
    assert train.label.tolist() == ["no finding", "finding"]
    assert train.images.shape == (2, 1, 28, 28)


@pytest.mark.parametrize(
    ("side", "name"),
    [
        (None, "bloodmnist.npz"),
        (8, "bloodmnist.npz"),
        (32, "bloodmnist.npz"),
        (46, "bloodmnist_64.npz"),  # as near to 28 as to 64
        (100, "bloodmnist_128.npz"),
        (512, "bloodmnist_224.npz"),
    ],
)
def test_nearest_stored_size_is_taken(side: int | None, name: str) -> None:
    """The file nearest to the side asked for is read, the larger one of two."""
    assert nearest_file(NAMED["bloodmnist"].files, side).name == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": None}, "expected an array named test_labels"),
        ({"val_labels": np.zeros((1, 1), np.uint8)}, "one label for each val image"),
        ({"val_labels": np.zeros(2, np.uint8)}, r"whole numbers \(n, 1\) or \(n, 14\)"),
        ({"val_labels": np.array([["a"], ["b"]])}, "whole numbers"),
        ({"val_images": np.zeros((2, 28, 28, 28), np.uint8)}, "expected images"),
        ({"train_images": np.array([{}, {}], dtype=object)}, "cannot be read as NPZ"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """What is missing, of another shape (3-D sets too) or pickled is refused."""
    stored = {name: a for name, a in (arrays() | change).items() if a is not None}
    np.savez(tmp_path / "p.npz", **stored)
    with pytest.raises(BadInput, match=message):
        read_medmnist(tmp_path / "p.npz")


def test_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """Half a download is refused by name, and so is text."""
    path = tmp_path / "p.npz"
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:3_000])
    with pytest.raises(BadInput, match=r"p\.npz: cannot be read as NPZ"):
        read_medmnist(path)
    path.write_text("<html>")
    with pytest.raises(BadInput, match=r"p\.npz: expected an npz file, got a text file"):
        read_medmnist(path)
