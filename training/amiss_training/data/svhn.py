"""SVHN, cropped digits: MATLAB v5 files with X (32, 32, 3, n) and y (n, 1), where 10 means 0.

Source: Netzer et al. 2011, http://ufldl.stanford.edu/housenumbers/.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amiss_export.errors import BadInput
from amiss_training.data.arrays import read_mat
from amiss_training.data.files import kind_of
from amiss_training.data.parts import Part, make_part


def read_svhn(files: Sequence[Path]) -> list[Part]:
    """The train and test parts, from train_32x32.mat and test_32x32.mat."""
    return [_read_part(path, path.name.split("_")[0]) for path in files]


def _read_part(path: Path, name: str) -> Part:
    if kind_of(path) != "mat":
        raise BadInput(f"{path}: expected a MATLAB v5 file, got a {kind_of(path)} file")
    found = read_mat(path, ("X", "y"))
    x, y = found.get("X"), found.get("y")
    if x is None or y is None:
        raise BadInput(f"{path}: expected arrays named X and y")
    if x.ndim != 4 or x.shape[:3] != (32, 32, 3) or x.dtype != np.uint8:
        raise BadInput(
            f"{path}: expected X as uint8 (32, 32, 3, n), got {x.dtype} of shape {x.shape}; take "
            "the cropped digits (format 2)"
        )
    if y.dtype.kind not in "iuf" or (y.size and not 1 <= y.min() <= y.max() <= 10):
        raise BadInput(f"{path}: expected labels y from 1 to 10, got {y.dtype} {y!r:.60}")
    return make_part(path, name, np.ascontiguousarray(x.transpose(3, 2, 0, 1)), y.reshape(-1) % 10)
