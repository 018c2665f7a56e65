"""Arrays: NPZ and .mat read by name, pickle refused."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from amiss_export.errors import BadInput
from amiss_training.data.arrays import read_arrays

X = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize("names", [("X", "y"), ("images", "labels"), ("x", "y"), ("arr_0", "y")])
def test_npz_by_any_usual_name(tmp_path: Path, names: tuple[str, str]) -> None:
    """Data and labels are found under each of their usual names."""
    np.savez(tmp_path / "a.npz", **{names[0]: X, names[1]: np.array([[0], [1], [0]])})
    data, label = read_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(data, X)
    assert label is not None
    assert label.tolist() == [0, 1, 0]


def test_mat_with_foreign_byte_order(tmp_path: Path) -> None:
    """A .mat file gives X and y in this machine's byte order."""
    savemat(tmp_path / "a.mat", {"X": X.astype(">f8"), "y": np.array([[0.0], [1.0], [0.0]])})
    data, label = read_arrays(tmp_path / "a.mat")
    np.testing.assert_array_equal(data, X)
    assert data.dtype.isnative
    assert label is not None
    assert label.shape == (3,)


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    """An object array in an NPZ or .mat file is refused, not unpickled."""
    np.savez(tmp_path / "a.npz", X=np.array([{"a": 1}, None], dtype=object))
    savemat(tmp_path / "a.mat", {"X": np.array(["a", X], dtype=object)})
    for name in ("a.npz", "a.mat"):
        with pytest.raises(BadInput, match=name):
            read_arrays(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Z": X}, "expected an array named X or images"),
        ({"y": np.zeros(3)}, "expected an array named X or images"),
        ({"X": X, "y": np.zeros(2)}, "expected one label a row"),
        ({"X": np.zeros(3)}, "two dimensions or more"),
        ({"X": np.zeros((0, 2))}, "at least one row, got 0"),
        ({"X": np.array([["a", "b"]])}, "expected the data as numbers"),
    ],
)
def test_unusable_arrays_are_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    """Absent, empty, textual and mismatched arrays are refused with what was expected."""
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=message):
        read_arrays(tmp_path / "a.npz")


def test_broken_archives_are_named(tmp_path: Path) -> None:
    """A cut-off NPZ, a ZIP of something else and a cut-off .mat are refused in one line."""
    np.savez(tmp_path / "a.npz", X=X)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("X", "text")
    savemat(tmp_path / "c.mat", {"X": X})
    whole = (tmp_path / "c.mat").read_bytes()
    (tmp_path / "c.mat").write_bytes(whole[:150])
    for name in ("a.npz", "b.npz", "c.mat"):
        with pytest.raises(BadInput, match=name) as refusal:
            read_arrays(tmp_path / name)
        assert "\n" not in str(refusal.value)
