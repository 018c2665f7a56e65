"""Pictures are drawn small, and what they show is what was measured."""

import io

import numpy as np
from PIL import Image

from amiss_training.plots_images import (
    absolute_difference,
    image_grid_png,
    pixel_maps_png,
    samples_png,
)


def test_difference_is_the_mean_over_channels() -> None:
    """|0 - 9| and |255 - 252| over two rows of pixels give 9 and 3, without wrapping round."""
    image = np.array([0, 255], dtype=np.uint8).reshape(1, 1, 1, 2).repeat(3, axis=1)
    other = np.array([9, 252], dtype=np.float32).reshape(1, 1, 1, 2).repeat(3, axis=1)
    assert absolute_difference(image, other).ravel().tolist() == [9, 3]


def test_a_grid_of_photographs_stays_small() -> None:
    """Five 256x256 colour images of noise, the worst case, stay under 400 kB."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 256, 256), dtype=np.uint8)
    png = image_grid_png(
        images,
        images[::-1].astype(np.float32),
        np.arange(5),
        brightest=200,
    )
    assert len(png) < 400_000


def test_maps_share_one_scale_whatever_else_is_drawn() -> None:
    """A map of halves looks the same beside a map of ones as beside a map of zeros."""
    images = np.zeros((2, 1, 8, 8), dtype=np.uint8)
    half, rest = np.full((8, 8), 0.5), np.ones((8, 8))
    drawn = [
        pixel_maps_png(images, np.stack([half, other]), np.zeros(2), masks=None)
        for other in (rest, 0 * rest)
    ]
    first, second = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in drawn)
    assert np.array_equal(first[: len(first) // 3], second[: len(second) // 3])
    assert not np.array_equal(first, second)


def test_masks_add_a_third_picture_to_each_row() -> None:
    """With the truth beside it, the figure holds white pixels that the map alone does not."""
    images, maps = np.zeros((1, 3, 8, 8), dtype=np.uint8), np.zeros((1, 8, 8))
    without = pixel_maps_png(images, maps, np.zeros(1), masks=None)
    beside = pixel_maps_png(images, maps, np.zeros(1), masks=np.ones((1, 8, 8), dtype=bool))
    white = [
        (np.asarray(Image.open(io.BytesIO(p)).convert("L")) > 250).sum() for p in (without, beside)
    ]
    assert white[1] > white[0] + 1_000


def test_samples_fill_lines_of_eight() -> None:
    """Sixteen square images take twice the height of eight; values beyond 0..255 are clipped."""
    images = np.linspace(-50, 300, 16 * 36).reshape(16, 1, 6, 6)
    two, one = (Image.open(io.BytesIO(samples_png(x))).height for x in (images, images[:8]))
    assert 1.6 < two / one < 2.2


def _white(png: bytes) -> int:
    """Pixels that are all but white."""
    return int((np.asarray(Image.open(io.BytesIO(png)).convert("L")) > 250).sum())
