"""Maps find the planted pixels, on a scale that normal images set."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from amiss_training.evaluate_images import pixel_auroc
from amiss_training.pixel_maps import PixelMaps

SIDE = 32


class Grey(nn.Module):
    """A read-out that expects the same grey everywhere."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expected = torch.full_like(x, 0.5)
        return (x - expected).flatten(1).square().sum(dim=1), expected


class Own(Grey):
    """One that says itself what a pixel's value is: its red part."""

    def pixel_map(self, x: Tensor) -> Tensor:
        return x[:, 0]


def test_a_planted_square_shines() -> None:
    """A bright square gets pixel AUROC > 0.95, and its middle lies beyond 1."""
    maps = PixelMaps(Grey(), _normals())
    images, masks = _planted()
    found = maps(images)
    assert pixel_auroc(found, masks) > 0.95  # type: ignore[operator]
    assert found[0, 10, 10] > 1


def test_normal_images_lie_between_0_and_1() -> None:
    """Half of the pixels of fresh normals lie below 0, and hardly an image reaches 1."""
    found = PixelMaps(Grey(), _normals())(_normals(seed=1))
    assert np.median(found) == pytest.approx(0, abs=0.1)
    assert (found.max(axis=(1, 2)) > 1).mean() < 0.15


def test_a_corner_that_always_varies_does_not_shine() -> None:
    """Where normals differ a lot, the same deviation says less than where they hardly do."""
    normals = _normals()
    normals[:, :, :8, :8] = np.random.default_rng(2).integers(0, 256, (64, 3, 8, 8))
    image = np.full((1, 3, SIDE, SIDE), 128, dtype=np.uint8)
    image[:, :, 0:8, 0:8] = image[:, :, 20:28, 20:28] = 200
    found = PixelMaps(Grey(), normals)(image)[0]
    assert found[24, 24] > 5 * abs(found[4, 4])


def test_one_image_has_one_map_whatever_stands_beside_it() -> None:
    """Alone or among 300 others, an image gets the same map."""
    maps = PixelMaps(Grey(), _normals())
    images = _normals(seed=3, n=300)
    np.testing.assert_allclose(maps(images)[7], maps(images[7:8])[0], rtol=1e-5, atol=1e-6)


def test_a_read_out_that_has_a_map_of_its_own_is_believed() -> None:
    """Its map is only brought to the scale: no blur, no deviations."""
    images = _normals(seed=4)
    found = PixelMaps(Own(), _normals())(images)
    red = images[:, 0] / 255
    assert np.corrcoef(found.ravel(), red.ravel())[0, 1] == pytest.approx(1, abs=1e-4)


def _normals(*, seed: int = 0, n: int = 64) -> NDArray[np.uint8]:
    """Grey with a little noise, (n, 3, 32, 32)."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(128, 8, (n, 3, SIDE, SIDE)), 0, 255).astype(np.uint8)


def _planted() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Five images with a brighter square, and where it is."""
    images, masks = _normals(seed=5, n=5), np.zeros((5, SIDE, SIDE), dtype=bool)
    masks[:, 6:14, 6:14] = True
    images[:, :, 6:14, 6:14] += 60
    return images, masks
