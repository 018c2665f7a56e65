"""Arrays of NPZ and .mat files: named, numeric, never unpickled."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from amiss_export.errors import BadInput
from amiss_training.data.files import kind_of, reading

DATA_NAMES, LABEL_NAMES = ("X", "images", "x", "arr_0"), ("y", "labels")


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Data (n, ...) and labels (n,), None without, of an NPZ or .mat file; both numeric or text.

    Data is the first of DATA_NAMES that is there, labels the first of LABEL_NAMES.
    """
    read = read_mat if kind_of(path) == "mat" else read_npz
    found = read(path, (*DATA_NAMES, *LABEL_NAMES))
    data = next((found[name] for name in DATA_NAMES if name in found), None)
    if data is None:
        raise BadInput(f"{path}: expected an array named {' or '.join(DATA_NAMES)}")
    if data.dtype.kind not in "fiub" or data.ndim < 2:
        raise BadInput(
            f"{path}: expected the data as numbers in two dimensions or more, "
            f"got {data.dtype} of shape {data.shape}"
        )
    if len(data) == 0:
        raise BadInput(f"{path}: expected at least one row, got 0")
    if data.dtype.kind == "f" and data.dtype.itemsize not in (4, 8):
        data = data.astype(np.float64)
    label = next((found[name] for name in LABEL_NAMES if name in found), None)
    return _native(data), None if label is None else _labels(path, label, rows=len(data))


def _labels(path: Path, label: NDArray[Any], *, rows: int) -> NDArray[Any]:
    if label.size != rows or label.dtype.kind not in "fiubU":
        raise BadInput(
            f"{path}: expected one label a row, numbers or text ({rows},), "
            f"got {label.dtype} of shape {label.shape}"
        )
    return _native(label).reshape(rows)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """The array in this machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that an NPZ file holds, at least one; objects are refused."""
    try:
        with (
            reading(path),
            path.open("rb") as stream,
            np.load(stream, allow_pickle=False) as archive,
        ):
            found = {name: archive[name] for name in names if name in archive}
            there = ", ".join(archive) or "nothing"
    except (ValueError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: cannot be read as NPZ: {error}") from error
    if not all(isinstance(array, np.ndarray) for array in found.values()):
        raise BadInput(f"{path}: expected arrays as numpy.savez writes them")
    if not found:
        raise BadInput(f"{path}: expected an array named {' or '.join(names)}, found {there}")
    return found


def read_mat(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that a MATLAB v5 file holds, full and without objects."""
    try:
        with reading(path):
            found = loadmat(path, variable_names=names)
    except (ValueError, TypeError, IndexError, NotImplementedError, MatReadError) as error:
        raise BadInput(f"{path}: cannot be read as a MATLAB file: {error}") from error
    arrays = {name: value for name, value in found.items() if name in names}
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind == "O":
            raise BadInput(f"{path}: expected {name} as a full array of numbers, got {value!r:.60}")
    return arrays
