"""Training images in more poses than were photographed: turned, mirrored, cropped.

Done once, before training, on the training rows alone: what a detector learns from then depends on
the seed only, not on batches or on where a run was resumed, and its read-out is fitted on it too.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from amiss_export.bundle import ImageInput
from amiss_training.checks import check_range
from amiss_training.data.images import Pixels, fit_arrays

Kind = Literal["object", "texture"]
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are multiplied; rows of any other role stay as they are.

    Args:
        copies: Altered copies of each training image beside the image itself; 0 = none.
        kind: object keeps the frame and repeats its edge where a turn uncovers it; texture cuts
            the largest centre without a border out, at random if `patch` is smaller. auto: texture
            for the folders carpet, grid, leather, tile and wood, object for any other.
        rotation_degrees: A copy is turned by up to this many degrees either way. A turn that can
            be a defect (a rotated piece of cloth) must not be taught as normal.
        flips: A copy is mirrored left to right and top to bottom, each with probability 1/2.
        patch: Side in pixels of the square that is cropped out of a texture and brought back to
            the image's size, so that its grain grows; unset = all of the border-free centre.
    """

    copies: int = 0
    kind: Literal["auto", "object", "texture"] = "auto"
    rotation_degrees: float = 0.0
    flips: bool = False
    patch: int | None = None


def check_augment(config: AugmentConfig) -> None:
    """Nothing; raises BadInput naming the option that cannot work, and its value."""
    check_range("augment.copies", config.copies, 0)
    check_range("augment.rotation_degrees", config.rotation_degrees, 0, 180)
    check_range("augment.patch", config.patch, 1)


def kind_of_category(category: str, config: AugmentConfig) -> Kind:
    """What the folder of that name shows, unless the settings say it."""
    if config.kind != "auto":
        return config.kind
    return "texture" if category in TEXTURES else "object"


def augment(images: Pixels, config: AugmentConfig, *, category: str, seed: int) -> Pixels:
    """The images (n, c, h, w) and after them `copies` rounds of altered ones, (n * (1 + copies)).

    category: name of the folder they come from. Deterministic in seed. The steps are those of the
    MVTec loaders of AAE-based detectors: rotation, border-free centre, random crop.
    """
    check_augment(config)
    alter = {"object": _altered_object, "texture": _altered_texture}[
        kind_of_category(category, config)
    ]
    rng = np.random.default_rng(seed)
    copies = [
        _mirrored(alter(image, config, rng), rng) if config.flips else alter(image, config, rng)
        for _ in range(config.copies)
        for image in images
    ]
    return np.concatenate([images, np.stack(copies)]) if copies else images


def border_free_share(height: int, width: int, degrees: float) -> float:
    """Side of the largest centred rectangle of an image's shape without a border once it is turned.

    As a share of the image's side: 1 for no turn, 1 / sqrt(2) for a square turned by 45 degrees.
    """
    cos, sin = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    return float(1 / max(cos + sin * height / width, cos + sin * width / height))


def _altered_object(image: Pixels, config: AugmentConfig, rng: np.random.Generator) -> Pixels:
    return _turned(image, rng.uniform(-config.rotation_degrees, config.rotation_degrees))


def _altered_texture(image: Pixels, config: AugmentConfig, rng: np.random.Generator) -> Pixels:
    channels, height, width = image.shape
    angle = rng.uniform(-config.rotation_degrees, config.rotation_degrees)
    share = border_free_share(height, width, angle)
    centre = _cut(_turned(image, angle), max(1, int(share * height)), max(1, int(share * width)))
    if config.patch is not None:
        side = min(config.patch, *centre.shape[1:])
        centre = _cut(centre, side, side, rng=rng)
    spec = ImageInput(channels=1 if channels == 1 else 3, height=height, width=width)
    fitted: Pixels = fit_arrays(centre[None], spec)[0]
    return fitted


def _turned(image: Pixels, degrees: float) -> Pixels:
    """The image turned about its centre; what a turn uncovers repeats the nearest edge."""
    turned: Pixels = ndimage.rotate(
        image, degrees, axes=(1, 2), reshape=False, order=1, mode="nearest"
    )
    return turned


def _cut(
    image: Pixels, height: int, width: int, *, rng: np.random.Generator | None = None
) -> Pixels:
    """A rectangle out of the image: somewhere, or its centre without a generator."""
    down, right = image.shape[1] - height, image.shape[2] - width
    top, left = (down // 2, right // 2) if rng is None else rng.integers(0, (down + 1, right + 1))
    return image[:, top : top + height, left : left + width]


def _mirrored(image: Pixels, rng: np.random.Generator) -> Pixels:
    down, across = rng.integers(0, 2, 2)
    mirrored: Pixels = image[:, :: 1 - 2 * down, :: 1 - 2 * across]
    return mirrored
