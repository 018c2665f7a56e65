"""MedMNIST: npz files with images and labels of train, val and test, at 28, 64, 128 or 224 px.

Source: Yang et al. 2023, https://medmnist.com. ChestMNIST has 14 findings an image: any of them
makes it "finding", none "no finding".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.data.arrays import read_npz
from amiss_training.data.files import kind_of
from amiss_training.data.images import as_channels_first
from amiss_training.data.named import MEDMNIST_SIDES, RemoteFile
from amiss_training.data.parts import Part, make_part

PARTS = ("train", "val", "test")
FINDING, NO_FINDING = "finding", "no finding"


def nearest_file(files: Sequence[RemoteFile], side: int | None) -> RemoteFile:
    """The file whose images are nearest to the side asked for, the larger of two; 28 px without."""
    wanted = MEDMNIST_SIDES[0] if side is None else side
    distance = {stored: (abs(stored - wanted), -stored) for stored in MEDMNIST_SIDES}
    return files[MEDMNIST_SIDES.index(min(MEDMNIST_SIDES, key=distance.__getitem__))]


def read_medmnist(path: Path) -> list[Part]:
    """The train, val and test parts of one npz file."""
    if kind_of(path) != "npz":
        raise BadInput(f"{path}: expected an npz file, got a {kind_of(path)} file")
    names = [f"{part}_{kind}" for part in PARTS for kind in ("images", "labels")]
    found = read_npz(path, names)
    absent = [name for name in names if name not in found]
    if absent:
        raise BadInput(f"{path}: expected an array named {', '.join(absent)}")
    return [
        _read_part(path, name, found[f"{name}_images"], found[f"{name}_labels"]) for name in PARTS
    ]


def _read_part(path: Path, name: str, images: NDArray[Any], label: NDArray[Any]) -> Part:
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise BadInput(
            f"{path}: expected {name}_labels as whole numbers (n, 1) or (n, 14), "
            f"got {label.dtype} of shape {label.shape}"
        )
    text = label[:, 0] if label.shape[1] == 1 else np.where(label.any(axis=1), FINDING, NO_FINDING)
    return make_part(path, name, as_channels_first(path, images), text)
