"""The parts of the exported graph compute what their formulas say."""

import math

import numpy as np
import pytest
import torch

from amiss_export.bundle import Column, TableInput
from amiss_export.graph import (
    CLIP,
    ImageFeatures,
    ScoreScale,
    ScoringGraph,
    TableFeatures,
    Whitener,
)
from small_graph import TABLE, Distance, rows


def test_training_features_are_standardised_and_clipped() -> None:
    """On training rows every varying feature has mean 0 and deviation 1; none passes the clip."""
    x = rows()
    features = TableFeatures(TABLE, x)(torch.from_numpy(x))
    varying = features.std(dim=0) > 1e-3
    assert features.shape == (400, 6)  # a, b, a-missing, blue, red, surprise
    assert varying.tolist() == [True] * 5 + [False]
    assert torch.allclose(features.mean(dim=0), torch.zeros(6), atol=0.05)
    assert torch.allclose(features[:, varying].std(dim=0), torch.ones(5), atol=0.05)
    assert features.abs().max() <= CLIP


def test_a_missing_number_reads_as_the_median_and_says_so() -> None:
    """NaN gives the median's feature and raises the column's own 'was missing' feature."""
    x = rows()
    features = TableFeatures(TABLE, x)
    median = np.nanmedian(x[:, 0])
    pair = torch.tensor([[math.nan, 2.0, 1.0], [median, 2.0, 1.0]])
    missing, present = features(pair)
    assert missing[0] == pytest.approx(float(present[0]), abs=1e-6)
    assert missing[2] > present[2]


def test_what_training_never_showed_is_far_out() -> None:
    """An unseen category and a gap in a column that never had one stand at the clip."""
    x = rows()
    features = TableFeatures(TABLE, x)
    unseen, new_gap, usual = features(
        torch.tensor([[5.0, 0.0, 1.0], [5.0, 2.0, math.nan], [5.0, 2.0, 1.0]])
    )
    assert unseen[-1] == CLIP
    assert new_gap[-1] == CLIP
    assert usual[-1] == 0


def test_a_long_tail_is_taken_on_a_log_scale() -> None:
    """The column over nine decades uses the log, the normal one does not."""
    assert TableFeatures(TABLE, rows()).is_log.tolist() == [False, True]


def test_the_unit_of_a_column_does_not_matter() -> None:
    """The same column in units 1e-15 as large has the same features: no floor in absolute terms."""
    spec = TableInput(columns=(Column(name="a", kind="number", dtype="float64"),))
    x = np.random.default_rng(0).normal(3, 1, (200, 1)).astype(np.float32)
    tiny = (x.astype(np.float64) * 1e-15).astype(np.float32)
    plain, scaled = (TableFeatures(spec, r)(torch.from_numpy(r)) for r in (x, tiny))
    assert float(plain[:, 0].std()) == pytest.approx(1, abs=0.01)
    assert torch.allclose(plain, scaled, atol=1e-4)


def test_restore_undoes_the_features() -> None:
    """Features of present, unclipped cells give back the raw values, in the column order."""
    x = rows(gaps=False)
    features = TableFeatures(TABLE, x)
    f = features(torch.from_numpy(x))
    inside = (f[:, :2].abs() < CLIP).all(dim=1)
    assert torch.allclose(features.restore(f)[inside], torch.from_numpy(x)[inside], rtol=1e-3)


def test_pixels_are_scaled_to_one_and_back() -> None:
    """0..255 becomes 0..1 and comes back."""
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    features = ImageFeatures()
    assert features(pixels).max() == 1.0
    assert torch.equal(features.restore(features(pixels)).round().to(torch.uint8), pixels)


def test_a_full_whitener_is_the_mahalanobis_distance() -> None:
    """With all directions kept the value is x' S^-1 x / d, by an independent formula."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(2_000, 6)) @ rng.normal(size=(6, 6)) + 3).astype(np.float32)
    whitener = Whitener(x, blocks=[4, 2], floor=1e-9)
    scaled = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    for block in (slice(0, 4), slice(4, 6)):
        scaled[:, block] /= np.sqrt(scaled[:, block].var(axis=0).sum())
    inverse = np.linalg.inv(scaled.T @ scaled / len(x))
    expected = np.einsum("ni,ij,nj->n", scaled, inverse, scaled) / 6
    assert whitener(torch.from_numpy(x)).numpy() == pytest.approx(expected, rel=1e-3)


def test_a_short_whitener_counts_the_rest_with_one_variance() -> None:
    """Beyond the kept directions a step is divided by the mean variance left (Tipping & Bishop)."""
    rng = np.random.default_rng(2)
    std = np.array([10.0, 5.0, 1.0, 1.0, 1.0, 1.0])
    x = (rng.normal(size=(20_000, 6)) * std).astype(np.float32)
    whitener = Whitener(x, blocks=[6], components=2, floor=1e-9)
    steps = torch.from_numpy(x.mean(axis=0) + np.eye(6, dtype=np.float32) * 3)
    expected = 9 / std**2 / 6
    assert whitener(steps).numpy() == pytest.approx(expected, rel=0.06)


def test_more_dimensions_than_rows_is_no_obstacle() -> None:
    """60 rows of 500 dimensions give finite values, larger for a row from elsewhere."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 500)).astype(np.float32)
    whitener = Whitener(x, blocks=[500], components=256)
    fresh = torch.from_numpy(rng.normal(size=(20, 500)).astype(np.float32))
    assert torch.isfinite(whitener(fresh)).all()
    assert whitener(fresh * 3).min() > whitener(fresh).max()


def test_the_score_scale_is_monotone_and_logarithmic_far_out() -> None:
    """The median normal scores 0, order is kept, and a value 1e6 spreads out stays below 16."""
    values = np.random.default_rng(4).normal(10, 2, 1_000).astype(np.float32)
    scale = ScoreScale(values)
    found = scale(torch.tensor([float(np.median(values)), 12.0, 20.0, 3e6]))
    assert abs(float(found[0])) < 0.01
    assert (found.diff() > 0).all()
    assert found[-1] < 16


def test_the_graph_takes_raw_rows_and_gives_score_and_raw_reconstruction() -> None:
    """Feature zero restores to the mean row; scores order rows by distance."""
    x = rows(gaps=False)
    graph = ScoringGraph(TableFeatures(TABLE, x), Distance(), torch.from_numpy(x))
    far = torch.tensor([[5.0, 2.0, 1.0], [500.0, 2.0, 1.0]])
    score, reconstruction = graph(far)
    assert score[1] > score[0]
    assert reconstruction.shape == far.shape
    assert float(reconstruction[0, 0]) == pytest.approx(float(x[:, 0].mean()), rel=1e-3)


def test_tables_are_scored_in_double() -> None:
    """Every weight of a table's graph is double; score and reconstruction come out as float32."""
    x = rows()
    graph = ScoringGraph(TableFeatures(TABLE, x), Distance(), torch.from_numpy(x))
    floating = [t for t in graph.state_dict().values() if t.is_floating_point()]
    assert {t.dtype for t in floating} == {torch.float64}
    assert {output.dtype for output in graph(torch.from_numpy(x))} == {torch.float32}
