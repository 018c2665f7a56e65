"""STL-10, binary version: 96x96 colour images stored column by column, and labels 1 to 10.

Source: Coates, Lee, Ng 2011, https://cs.stanford.edu/~acoates/stl10/. The 100,000 unlabelled images
are passed over. Class numbers are given from 0, as other libraries do: 0 airplane to 9 truck.
"""

from pathlib import Path

import numpy as np

from amiss_export.errors import BadInput
from amiss_training.data.archives import read_members
from amiss_training.data.parts import Part, make_part

FOLDER = "stl10_binary"
NAMES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
_SIDE = 96
_BYTES = 3 * _SIDE * _SIDE


def read_stl10(place: Path) -> list[Part]:
    """The train and test parts, from the folder of .bin files or from the published archive."""
    contents = read_members(place, NAMES)
    return [
        _read_part(place, name, contents[f"{name}_X.bin"], contents[f"{name}_y.bin"])
        for name in ("train", "test")
    ]


def _read_part(place: Path, name: str, pixels: bytes, labels: bytes) -> Part:
    if not pixels or len(pixels) % _BYTES:
        raise BadInput(
            f"{place / f'{name}_X.bin'}: expected a whole number of images of {_BYTES} bytes, got "
            f"{len(pixels)} bytes; the file is cut off or of another format"
        )
    columns_first = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, 3, _SIDE, _SIDE)
    images = np.ascontiguousarray(columns_first.swapaxes(2, 3))
    label = np.frombuffer(labels, dtype=np.uint8)
    if label.size and not 1 <= label.min() <= label.max() <= 10:
        raise BadInput(
            f"{place / f'{name}_y.bin'}: expected labels 1 to 10, "
            f"got {label.min()} to {label.max()}"
        )
    return make_part(place, name, images, label - 1)
