"""Structural similarity against scikit-image, and its multi-scale form against its definition."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn import functional

from amiss_training.detectors.similarity import levels, ms_ssim, ssim


def pair(side: int, *, channels: int = 1, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and noisy versions of them."""
    generator = torch.Generator().manual_seed(side)
    x = torch.rand(n, channels, side, side, generator=generator)
    return x, (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_images(channels: int) -> None:
    """With a Gaussian window the two agree away from the border that only theirs pads."""
    x, y = pair(40, channels=channels)
    for i in range(len(x)):
        _, theirs = structural_similarity(
            x[i].numpy(),
            y[i].numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        inner = theirs[:, 5:-5, 5:-5].mean()
        assert float(ssim(x, y)[i]) == pytest.approx(float(inner), abs=1e-4)


def test_an_image_is_wholly_similar_to_itself() -> None:
    """Both measures are 1 for equal images and lower for unequal ones, whatever the size."""
    for side in (8, 28, 64, 97, 128):
        x, y = pair(side)
        for measure in (ssim, ms_ssim):
            assert torch.allclose(measure(x, x), torch.ones(3), atol=1e-5)
            assert (measure(x, y) < 0.99).all()


def test_the_window_weighs_its_middle_most() -> None:
    """Damage in the middle of a window-sized image costs more than in its corner (D18)."""
    x = torch.full((1, 1, 11, 11), 0.5)
    middle, corner = x.clone(), x.clone()
    middle[..., 5, 5], corner[..., 0, 0] = 1.0, 1.0
    assert ssim(x, middle) < ssim(x, corner)


@pytest.mark.parametrize(("side", "count"), [(28, 3), (32, 3), (64, 4), (96, 4), (97, 5), (200, 5)])
def test_smaller_images_get_fewer_levels(side: int, count: int) -> None:
    """Five levels begin at 97 pixels."""
    assert levels(side) == count


@pytest.mark.parametrize("side", [25, 28])
def test_multi_scale_is_the_weighted_product_of_its_levels(side: int) -> None:
    """Contrast at every level but the last, similarity once, at the last (D18)."""
    x, y = pair(side)
    weights = np.array([0.0448, 0.2856, 0.3001])
    weights /= weights.sum()
    product = np.ones(3)
    for i, weight in enumerate(weights):
        if i:
            x, y = (functional.avg_pool2d(image, 2, ceil_mode=True) for image in (x, y))
        product *= level(x, y, only_contrast=i < 2) ** weight
    x, y = pair(side)
    assert ms_ssim(x, y).numpy() == pytest.approx(product, abs=1e-4)


def level(x: torch.Tensor, y: torch.Tensor, *, only_contrast: bool) -> np.ndarray:
    """One level by the definition, a window at a time."""
    offset = np.arange(7) - 3.0
    window = np.outer(*2 * [np.exp(-(offset**2) / 4.5)])
    window /= window.sum()
    values = []
    for a, b in zip(x[:, 0].double().numpy(), y[:, 0].double().numpy(), strict=True):
        found = []
        for i in range(a.shape[0] - 6):
            for j in range(a.shape[1] - 6):
                p, q = a[i : i + 7, j : j + 7], b[i : i + 7, j : j + 7]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                contrast = (2 * cov + 0.03**2) / (vp + vq + 0.03**2)
                light = (2 * mp * mq + 0.01**2) / (mp**2 + mq**2 + 0.01**2)
                found.append(contrast if only_contrast else light * contrast)
        values.append(np.mean(found))
    return np.array(values)


def test_opposite_images_give_a_number() -> None:
    """A negative level has no real fractional power: it counts as nothing, never as NaN (D18)."""
    x, _ = pair(64)
    assert torch.isfinite(ms_ssim(x, 1.0 - x)).all()
    assert (ms_ssim(x, 1.0 - x) < 0.1).all()
