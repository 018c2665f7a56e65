"""The official parts of a data set, train and test, as one source of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.data.files import sha256_of
from amiss_training.data.image_sources import ImageSource, array_source
from amiss_training.data.images import Pixels


@dataclass(frozen=True)
class Part:
    """Images of one official part: uint8 (n, channels, h, w), their labels, (n,) text, its name."""

    name: str
    images: Pixels
    label: NDArray[np.str_]

    def row_names(self) -> list[str]:
        """PART/ROW for each image, 0-based."""
        return [f"{self.name}/{row}" for row in range(len(self.images))]


def make_part(path: Path, name: str, images: Pixels, label: NDArray[Any]) -> Part:
    """The part with its classes as text; BadInput without one label for each image."""
    if len(images) == 0 or label.shape != (len(images),):
        raise BadInput(
            f"{path}: expected one label for each {name} image, at least one, got {len(images)} "
            f"images and labels of shape {label.shape}"
        )
    return Part(name, images, label.astype(np.str_))


def pool(name: str, parts: Sequence[Part], files: Sequence[Path]) -> ImageSource:
    """All parts one after another as a source; own_test is True for the part named test."""
    label = np.concatenate([part.label for part in parts])
    source = array_source(
        name, np.concatenate([part.images for part in parts]), label, lambda: sha256_of(files)
    )
    own_test = [np.full(len(part.images), part.name == "test") for part in parts]
    return replace(
        source,
        names=[row for part in parts for row in part.row_names()],
        own_test=np.concatenate(own_test),
    )
