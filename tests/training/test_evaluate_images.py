"""Image figures, against formulas written another way."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from amiss_training.evaluate_images import pixel_auroc, reconstruction_quality


def test_psnr_is_the_mean_over_images_of_its_formula() -> None:
    """Errors of 0.1 and 0.01 everywhere are 20 dB and 40 dB, 30 dB on average."""
    images = np.full((2, 1, 16, 16), 0.5, dtype=np.float32)
    shifted = images + np.array([0.1, 0.01], dtype=np.float32)[:, None, None, None]
    assert reconstruction_quality(images, shifted)["psnr"] == pytest.approx(30, abs=1e-3)


def test_equal_images_have_ssim_1_and_psnr_100() -> None:
    """A perfect reconstruction has similarity 1 and the highest PSNR, not infinity."""
    images = np.random.default_rng(0).random((300, 3, 16, 16), dtype=np.float32)
    found = reconstruction_quality(images, images)
    assert found["n"] == 300
    assert found["ssim"] == pytest.approx(1)
    assert found["psnr"] == pytest.approx(100)


def test_pixel_auroc_is_over_all_pixels_together() -> None:
    """It equals scikit-learn's on the pooled pixels, not the mean of each image's."""
    rng = np.random.default_rng(1)
    masks = rng.random((4, 5, 6)) < 0.3
    maps = rng.random((4, 5, 6)) + masks * np.arange(4)[:, None, None]
    pooled = roc_auc_score(masks.reshape(-1), maps.reshape(-1))
    assert pixel_auroc(maps, masks) == pytest.approx(pooled)


def test_masks_of_one_kind_have_no_pixel_auroc() -> None:
    """Without a defective pixel the answer is None."""
    assert pixel_auroc(np.zeros((2, 3, 3)), np.zeros((2, 3, 3), dtype=bool)) is None
