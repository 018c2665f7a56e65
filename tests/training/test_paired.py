"""The interval of a difference of two AUROCs, against resampling and the textbook."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from amiss_training.paired import paired_difference


def test_the_value_is_the_difference_of_the_aurocs() -> None:
    """It equals scikit-learn's AUROC of ours minus theirs, ties included."""
    ours, theirs, truth = _scores(seed=0)
    found = paired_difference(ours, theirs, truth)
    expected = roc_auc_score(truth, ours) - roc_auc_score(truth, theirs)
    assert found is not None
    assert found.value == pytest.approx(expected)


def test_the_interval_agrees_with_a_bootstrap() -> None:
    """Its width is within 10 % of the percentile interval of 2,000 stratified resamples."""
    ours, theirs, truth = _scores(seed=1)
    rng = np.random.default_rng(0)
    anomalies, normals = np.flatnonzero(truth), np.flatnonzero(~truth)
    differences = []
    for _ in range(2_000):
        rows = np.r_[rng.choice(anomalies, len(anomalies)), rng.choice(normals, len(normals))]
        differences.append(_auroc(ours[rows], truth[rows]) - _auroc(theirs[rows], truth[rows]))
    low, high = np.quantile(differences, [0.025, 0.975])
    found = paired_difference(ours, theirs, truth)
    assert found is not None
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)
    assert found.low == pytest.approx(low, abs=0.01)


def test_the_interval_is_delongs_over_all_pairs() -> None:
    """The variance by midranks equals the one from the full table of pairwise comparisons."""
    ours, theirs, truth = _scores(seed=2)
    kernels = [_kernel(score, truth) for score in (ours, theirs)]
    gap = kernels[0] - kernels[1]
    variance = gap.mean(axis=1).var(ddof=1) / len(gap) + gap.mean(axis=0).var(ddof=1) / gap.shape[1]
    found = paired_difference(ours, theirs, truth)
    assert found is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * np.sqrt(variance))


def test_pairing_narrows_the_interval() -> None:
    """A score and its slightly shaken copy have a narrower interval than two independent ones."""
    ours, theirs, truth = _scores(seed=3)
    shaken = ours + 0.01 * np.random.default_rng(0).normal(size=len(ours))
    near, far = (paired_difference(ours, other, truth) for other in (shaken, theirs))
    assert near is not None
    assert far is not None
    assert near.high - near.low < 0.3 * (far.high - far.low)


def test_equal_scores_do_not_differ() -> None:
    """A score beside itself differs by 0 with an interval of no width, which holds 0."""
    ours, _, truth = _scores(seed=4)
    found = paired_difference(ours, ours, truth)
    assert found is not None
    assert (found.value, found.low, found.high, found.excludes_zero) == (0, 0, 0, False)


def test_one_anomaly_has_no_interval() -> None:
    """With a single anomaly nothing varies among the anomalies, so there is no answer."""
    ours, theirs, _ = _scores(seed=5)
    assert paired_difference(ours, theirs, np.arange(len(ours)) == 0) is None


def _scores(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Two correlated scores of 150 normals and 60 anomalies, rounded so that ties occur."""
    rng = np.random.default_rng(seed)
    truth = np.arange(210) >= 150
    shared = rng.normal(size=210) + 1.2 * truth
    ours, theirs = (np.round(shared + rng.normal(size=210), 1) for _ in range(2))
    return ours, theirs, truth


def _kernel(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1, 0.5 or 0 for every anomaly (rows) beside every normal (columns)."""
    a, b = score[truth][:, None], score[~truth][None]
    return (a > b) + 0.5 * (a == b)


def _auroc(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    return float(_kernel(score, truth).mean())
