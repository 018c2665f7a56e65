"""Structural similarity of images (Wang et al. 2004), also over several scales (2003)."""

import math

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for images 0..1
LEVEL_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim(x: Tensor, y: Tensor, *, window: int = WINDOW) -> Tensor:
    """Mean structural similarity (n,) of images 0..1 (n, c, h, w); 1 = equal.

    A Gaussian window of standard deviation 1.5, over positions where it fits; one no larger than
    the image.
    """
    similarity, _ = _components(x, y, window=_fitting(x, window))
    return similarity.flatten(1).mean(dim=1)


def ms_ssim(x: Tensor, y: Tensor, *, window: int = 7) -> Tensor:
    """Multi-scale structural similarity (n,) of images 0..1 (n, c, h, w).

    Five levels need a side of 97 pixels; smaller images get fewer, with the weights renormalised.
    Luminance counts at the coarsest level alone. A negative level counts as 0: it has no real
    fractional power.
    """
    weights = torch.tensor(LEVEL_WEIGHTS[: levels(min(x.shape[2:]), window=window)])
    weights = (weights / weights.sum()).to(x)
    product = torch.ones(x.shape[0], dtype=x.dtype, device=x.device)
    for level in range(len(weights)):
        if level > 0:
            x, y = _halved(x), _halved(y)
        similarity, contrast = _components(x, y, window=_fitting(x, window))
        of_level = similarity if level == len(weights) - 1 else contrast
        mean = of_level.flatten(1).mean(dim=1)
        product = product * mean.clamp(min=1e-6) ** weights[level]
    return product


def levels(side: int, *, window: int = 7) -> int:
    """Levels an image of that side in pixels can bear: the window must fit the coarsest one."""
    return max(1, min(len(LEVEL_WEIGHTS), int(math.log2(max(side - 1, 1) / (window - 1))) + 1))


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (n,) of images 0..1 (n, c, h, w), in decibels; higher = nearer."""
    error = (x - y).square().flatten(1).mean(dim=1)
    return -10.0 * error.clamp(min=1e-10).log10()


def _components(x: Tensor, y: Tensor, *, window: int) -> tuple[Tensor, Tensor]:
    """Similarity and its contrast-structure part, each (n, c, h', w'); equation 13 of the paper."""
    kernel = _gaussian(window).to(x).expand(x.shape[1], 1, window, window)

    def blur(image: Tensor) -> Tensor:
        return functional.conv2d(image, kernel, groups=image.shape[1])

    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x.square() + blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + C2) / (variances + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return luminance * contrast, contrast


def _halved(images: Tensor) -> Tensor:
    """Means of squares of four pixels; at an odd side's end of the two, or the one, there are."""
    height, width = images.shape[2:]
    even = functional.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
    return functional.avg_pool2d(even, 2)


def _gaussian(window: int) -> Tensor:
    """A normalised Gaussian window (window, window), heaviest in the middle."""
    offset = torch.arange(window) - (window - 1) / 2
    line = torch.exp(-(offset**2) / (2 * SIGMA**2))
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


def _fitting(x: Tensor, window: int) -> int:
    """The window, or the largest odd one that fits the image."""
    side = min(x.shape[2:])
    return min(window, side if side % 2 else side - 1)
