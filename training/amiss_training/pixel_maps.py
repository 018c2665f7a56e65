"""Where in an image something is amiss."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from amiss_export.graph import ImageFeatures
from amiss_training.rows import spread

BLUR_SIGMA, BLUR_SIDE = 4.0, 128  # pixels, at that side: the field's convention
SPREAD_FLOOR = 0.1  # of the mean variance: a border that never varies must not shout
MAX_NORMALS = 512
BATCH_ROWS = 256

Maps = NDArray[np.float32]


class PixelMaps:
    """Maps (k, h, w) of raw images (k, c, h, w): 0 = the median pixel of normal images.

    1 = the brightest pixel of all but the most extreme 1 % of normal images; not clipped. A
    read-out with a `pixel_map` of its own says what a pixel's value is; for others it is the
    absolute residual, averaged over the channels, in each pixel's own deviations among normals
    (or edges would always glow), blurred. Deterministic, and fixed before any image is judged.
    """

    def __init__(self, readout: nn.Module, early_stop: NDArray[np.uint8]) -> None:
        """early_stop: raw normal images, of which at most 512 set the scale."""
        self.features, self.readout = ImageFeatures(), readout
        raw = self._raw(spread(early_stop, MAX_NORMALS))
        variance = raw.var(axis=0)
        self.mean = raw.mean(axis=0)
        self.spread = np.sqrt(variance + SPREAD_FLOOR * variance.mean()) + 1e-12
        maps = self._smooth(raw)
        self.zero = float(np.median(maps))
        self.one = float(np.quantile(maps.max(axis=(1, 2)), 0.99))

    def __call__(self, images: NDArray[np.uint8]) -> Maps:
        return (self._smooth(self._raw(images)) - self.zero) / max(self.one - self.zero, 1e-12)

    def _raw(self, images: NDArray[np.uint8]) -> Maps:
        with torch.inference_mode():
            parts = [
                _pixel_values(self.readout, self.features(torch.from_numpy(images[i:end])))
                for i in range(0, len(images), BATCH_ROWS)
                for end in (i + BATCH_ROWS,)
            ]
        return torch.cat(parts).float().numpy()

    def _smooth(self, raw: Maps) -> Maps:
        if hasattr(self.readout, "pixel_map"):
            return raw
        sigma = BLUR_SIGMA * min(raw.shape[1:]) / BLUR_SIDE
        z = (raw - self.mean) / self.spread
        return np.asarray(gaussian_filter(z, sigma=(0, sigma, sigma)), dtype=np.float32)


def _pixel_values(readout: Any, features: Tensor) -> Tensor:
    """(n, h, w), higher = more amiss."""
    if hasattr(readout, "pixel_map"):
        own: Tensor = readout.pixel_map(features)
        return own
    _, expected = readout(features)
    residual: Tensor = (features - expected).abs().mean(dim=1)
    return residual
