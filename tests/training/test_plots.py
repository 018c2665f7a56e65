"""Figures are drawn for whatever scores and histories come."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amiss_training import plots

NORMALS = np.random.default_rng(0).gamma(4, size=300)


@pytest.mark.parametrize(
    "anomalies",
    [NORMALS[:20] + 3, 10 ** np.linspace(0, 12, 40), -(10 ** np.linspace(0, 6, 40)), NORMALS[:0]],
    ids=["near", "far above", "far below", "none"],
)
def test_histogram_takes_any_range(anomalies: NDArray[np.float64]) -> None:
    """Anomalies near, 12 decades away, far below or absent: a PNG comes, with no warning."""
    score = np.r_[NORMALS, anomalies].astype(np.float32)
    truth = np.arange(len(score)) >= len(NORMALS)
    png = plots.histogram_png(score, truth, threshold=9, median=4, theme=plots.LIGHT)
    assert _size(png)[0] > 400


def test_histogram_of_one_value() -> None:
    """Scores that are all alike, and equal to the threshold, still have a histogram."""
    score = np.full(30, 4, dtype=np.float32)
    png = plots.histogram_png(score, score > 5, threshold=4, median=4, theme=plots.DARK)
    assert _size(png)[0] > 400


def test_history_pairs_training_with_validation() -> None:
    """Two panels, loss and kl, make a taller picture than loss alone; text and NaN are skipped."""
    one = [{"epoch": 0, "train_loss": 2.0, "val_loss": 3.0, "device": "cpu"}]
    two = [{**one[0], "train_kl": 1.0}, {"epoch": 1, "train_kl": float("nan"), "resumed": True}]
    first, second = (plots.history_png(h, theme=plots.LIGHT) for h in (one, two))
    assert first is not None
    assert second is not None
    assert _size(second)[1] > 1.5 * _size(first)[1]


def test_no_history_no_figure() -> None:
    """A history without numbers has no figure."""
    assert plots.history_png([], theme=plots.LIGHT) is None
    assert plots.history_png([{"epoch": 3}], theme=plots.LIGHT) is None


def test_difference_is_the_mean_over_channels() -> None:
    """|0 - 9| and |255 - 252| over two rows of pixels give 9 and 3, without wrapping round."""
    image = np.array([0, 255], dtype=np.uint8).reshape(1, 1, 1, 2).repeat(3, axis=1)
    other = np.array([9, 252], dtype=np.float32).reshape(1, 1, 1, 2).repeat(3, axis=1)
    assert plots.absolute_difference(image, other).ravel().tolist() == [9, 3]


def test_a_grid_of_photographs_stays_small() -> None:
    """Five 256x256 colour images of noise, the worst case, stay under 400 kB."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 256, 256), dtype=np.uint8)
    png = plots.image_grid_png(
        images,
        images[::-1].astype(np.float32),
        np.arange(5),
        brightest=200,
    )
    assert len(png) < 400_000


def _size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size
