"""The latent space is drawn for any labels."""

import io

import numpy as np
import pytest
from PIL import Image

from amiss_training.plots import LIGHT
from amiss_training.plots_latent import _groups, latent_png


@pytest.mark.parametrize("labels", [1, 3, 25])
def test_any_number_of_labels_is_drawn(labels: int) -> None:
    """One label, a few and more than there are colours each give a PNG, with no warning."""
    label = np.array([f"$\\frac{i % labels}" for i in range(100)])
    codes = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    drawn = latent_png(codes, label, np.arange(100) >= 80, axis="dimension", theme=LIGHT)
    assert Image.open(io.BytesIO(drawn)).width > 400


def test_every_row_is_drawn_once() -> None:
    """Groups of the 10 largest labels and the rest hold each row exactly once, normals first."""
    rng = np.random.default_rng(1)
    label = rng.integers(0, 30, 500).astype(str)
    truth = rng.random(500) < 0.5
    groups = _groups(label, truth)
    rows = np.concatenate([rows for _, rows, _ in groups])
    assert sorted(rows.tolist()) == list(range(500))
    kinds = [anomalous for _, _, anomalous in groups]
    assert kinds == sorted(kinds)
    assert all((truth[rows] == anomalous).all() for _, rows, anomalous in groups)
