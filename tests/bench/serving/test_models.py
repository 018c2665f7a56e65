"""What is asked about: the same for the same seed, and of the kind that the model takes."""

from pathlib import Path

import numpy as np

from bench.serving.models import NAME, TABLE, Model, rows


def test_rows_share_their_factors_and_nothing_else() -> None:
    """Other seeds draw other rows of the same correlations, which are strong."""
    one, other = rows(4000, seed=0), rows(4000, seed=1)
    assert not np.isclose(one, other).any(axis=1).all()
    correlations = [np.corrcoef(x, rowvar=False) for x in (one, other)]
    np.testing.assert_allclose(*correlations, atol=0.12)
    assert np.abs(correlations[0][0, 1:]).max() > 0.5


def test_a_model_is_asked_about_what_it_takes() -> None:
    """Images of bytes for the digits, rows of floats for a table; both as many as wanted."""
    images, table = (Model(Path("models"), name).inputs(5) for name in (NAME, TABLE))
    assert (images.dtype.name, images.shape) == ("uint8", (5, 1, 28, 28))
    assert (table.dtype.name, table.shape) == ("float32", (5, 121))
