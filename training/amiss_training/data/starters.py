"""The two data sets inside scikit-learn that a new installation starts with."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

BREAST_CANCER_LABEL = "label"


def digits() -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """1,797 grey 8x8 images of handwritten digits, uint8 (n, 1, 8, 8), and their digits as text."""
    found = load_digits()
    pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    return pixels[:, None], found.target.astype(np.str_)


def breast_cancer() -> pa.Table:
    """569 rows of 30 measurements of cell nuclei, and their label: benign or malignant."""
    found = load_breast_cancer()
    columns = {str(name): found.data[:, j] for j, name in enumerate(found.feature_names)}
    return pa.table({**columns, BREAST_CANCER_LABEL: found.target_names[found.target].astype(str)})


def hash_arrays(*arrays: NDArray[Any]) -> str:
    """sha256, as hex, of the arrays' types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        fixed = array.astype(np.str_) if array.dtype == object else array  # objects have no bytes
        digest.update(np.ascontiguousarray(fixed).tobytes())
    return digest.hexdigest()
