"""CIFAR-10 and CIFAR-100, binary version: one label byte or two, then 3x32x32 bytes an image.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html. The Python version is pickles
and is never loaded.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.data.archives import read_members
from amiss_training.data.parts import Part, make_part

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class CifarFormat:
    """How a version is stored.

    folder: what its archive unpacks to. files: by part. label_bytes: before each image, of which
    the last one is the label. classes: how many there are.
    """

    folder: str
    files: dict[str, tuple[str, ...]]
    label_bytes: int
    classes: int

    @property
    def names(self) -> list[str]:
        """All file names."""
        return [name for names in self.files.values() for name in names]


FORMATS = {
    "cifar10": CifarFormat(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        label_bytes=1,
        classes=10,
    ),
    "cifar100": CifarFormat(  # the coarse label comes first, the fine one, which is ours, second
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        label_bytes=2,
        classes=100,
    ),
}


def read_cifar(place: Path, kind: CifarFormat) -> list[Part]:
    """The train and test parts, from the folder of .bin files or from the published archive."""
    contents = read_members(place, kind.names)
    return [
        _read_part(place, part_name, {name: contents[name] for name in files}, kind)
        for part_name, files in kind.files.items()
    ]


def _read_part(place: Path, name: str, contents: dict[str, bytes], kind: CifarFormat) -> Part:
    records = np.concatenate([_records(place / f, data, kind) for f, data in contents.items()])
    label, pixels = records[:, kind.label_bytes - 1], records[:, kind.label_bytes :]
    return make_part(place, name, pixels.reshape(-1, *_SHAPE), label)


def _records(path: Path, data: bytes, kind: CifarFormat) -> NDArray[np.uint8]:
    width = kind.label_bytes + _PIXELS
    if not data or len(data) % width:
        raise BadInput(
            f"{path}: expected a whole number of records of {width} bytes, got {len(data)} bytes; "
            "the file is cut off or of another format"
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
    largest = int(records[:, kind.label_bytes - 1].max())
    if largest >= kind.classes:
        raise BadInput(f"{path}: expected labels below {kind.classes}, got {largest}")
    return records
