"""Charts are drawn for whatever scores and histories come."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amiss_training.plots import DARK, LIGHT
from amiss_training.plots_curves import cdf_png, histogram_png, history_png

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
    png = histogram_png(score, truth, threshold=9, median=4, theme=LIGHT)
    assert _size(png)[0] > 400


def test_histogram_of_one_value() -> None:
    """Scores that are all alike, and equal to the threshold, still have a histogram."""
    score = np.full(30, 4, dtype=np.float32)
    png = histogram_png(score, score > 5, threshold=4, median=4, theme=DARK)
    assert _size(png)[0] > 400


def test_history_pairs_training_with_validation() -> None:
    """Two panels, loss and kl, make a taller picture than loss alone; text and NaN are skipped."""
    one = [{"epoch": 0, "train_loss": 2.0, "val_loss": 3.0, "device": "cpu"}]
    two = [{**one[0], "train_kl": 1.0}, {"epoch": 1, "train_kl": float("nan"), "resumed": True}]
    first, second = (history_png(h, theme=LIGHT) for h in (one, two))
    assert first is not None
    assert second is not None
    assert _size(second)[1] > 1.5 * _size(first)[1]


def test_no_history_no_figure() -> None:
    """A history without numbers has no figure."""
    assert history_png([], theme=LIGHT) is None
    assert history_png([{"epoch": 3}], theme=LIGHT) is None


@pytest.mark.parametrize("anomalies", [NORMALS[:20] + 3, NORMALS[:0]], ids=["some", "none"])
def test_cdf_is_drawn_with_and_without_anomalies(anomalies: NDArray[np.float64]) -> None:
    """The cumulative shares of one kind or of two come as a PNG, with no warning."""
    score = np.r_[NORMALS, anomalies]
    truth = np.arange(len(score)) >= len(NORMALS)
    assert _size(cdf_png(score, truth, threshold=9, median=4, theme=LIGHT))[0] > 400


def _size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size
