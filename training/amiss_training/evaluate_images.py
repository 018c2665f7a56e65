"""How well images are rebuilt, and how well maps find the defective pixels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from amiss_training.detectors.similarity import ssim

BATCH_ROWS = 256


def reconstruction_quality(
    images: NDArray[np.float32], reconstructions: NDArray[np.float32]
) -> dict[str, float]:
    """{"n", "psnr", "ssim"}: means over n images 0..1 (n, c, h, w); higher = better rebuilt.

    psnr in dB, 10 log10(1 / mean squared error), at most 100 where the two are equal. ssim: Wang
    et al. 2004, 1 = equal.
    """
    wide = images.astype(np.float64) - reconstructions
    error = np.square(wide).mean(axis=(1, 2, 3))
    similarity = [
        ssim(*(torch.from_numpy(a[i : i + BATCH_ROWS]) for a in (images, reconstructions)))
        for i in range(0, len(images), BATCH_ROWS)
    ]
    return {
        "n": len(images),
        "psnr": float((-10 * np.log10(np.maximum(error, 1e-10))).mean()),
        "ssim": float(torch.cat(similarity).mean()),
    }


def pixel_auroc(maps: NDArray[Any], masks: NDArray[np.bool_]) -> float | None:
    """AUROC over all pixels of all the images together; None where every pixel is of one kind.

    maps: (n, h, w) higher = more anomalous; masks: (n, h, w) True where a pixel is defective.
    """
    if masks.all() or not masks.any():
        return None
    return float(roc_auc_score(masks.ravel(), maps.ravel()))
