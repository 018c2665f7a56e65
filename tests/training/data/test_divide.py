"""Divide: anomalies mixed in by the asked share, tests thinned, and nothing leaked on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amiss_export.errors import TooFewRows
from amiss_training.data.divide import contaminate, divide, reunite, thin_test
from amiss_training.data.options import DataOptions
from amiss_training.data.splits import Roles

PAPER = DataOptions(keep_anomalies_out=False)
LEAKY = DataOptions(keep_repeats_together=False)


def rows(n: int, anomalies: int, distinct: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Hashes, some of them equal when fewer are distinct, and the last rows anomalies."""
    rng = np.random.default_rng(2)
    hashes = np.arange(n) if distinct is None else rng.integers(0, distinct, n)
    return hashes.astype(np.uint64), np.arange(n) >= n - anomalies


def contents(roles: Roles, hashes: np.ndarray) -> list[set[int]]:
    return [set(hashes[index].tolist()) for _, index in roles.items()]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_contamination_is_the_share_of_the_training_rows(share: float) -> None:
    """Of all rows trained on, that share are anomalies, give or take one row."""
    hashes, is_anomaly = rows(1000, 200)
    found = divide(hashes, is_anomaly, DataOptions(contamination=share), seed=0)
    trained = is_anomaly[found.train]
    assert trained.sum() == pytest.approx(share * len(trained), abs=0.5)
    assert not is_anomaly[found.early_stop].any()
    assert not is_anomaly[found.calibration].any()
    assert is_anomaly[found.test].sum() == 200 - trained.sum()


def test_contamination_moves_no_normal() -> None:
    """The normals play the same roles with contamination as without."""
    hashes, is_anomaly = rows(500, 100)
    clean = divide(hashes, is_anomaly, DataOptions(), seed=3)
    mixed = divide(hashes, is_anomaly, DataOptions(contamination=0.1), seed=3)
    for (_, before), (_, after) in zip(clean.items(), mixed.items(), strict=True):
        assert before[~is_anomaly[before]].tolist() == after[~is_anomaly[after]].tolist()


@given(distinct=st.integers(150, 900), share=st.floats(0.01, 0.1), seed=st.integers(0, 20))
def test_no_anomaly_that_was_trained_on_comes_back_in_test(
    distinct: int, share: float, seed: int
) -> None:
    """However often anomalies repeat, those in training equal none in test (defect D8)."""
    hashes, is_anomaly = rows(900, 300, distinct)
    found = divide(hashes, is_anomaly, DataOptions(contamination=share), seed=seed)
    train, test = (i[is_anomaly[i]] for i in (found.train, found.test))
    assert not set(hashes[train].tolist()) & set(hashes[test].tolist())
    assert len(train) <= round(share / (1 - share) * len(found.train))


def test_a_crowd_of_equal_anomalies_is_passed_over() -> None:
    """A group larger than what is wanted stays in test; single anomalies fill the share."""
    groups = np.array([0] * 90 + [1] * 50 + [2, 3, 4, 5])
    is_anomaly = np.arange(144) >= 90
    start = Roles(np.arange(80), np.arange(80, 85), np.arange(85, 90), np.arange(90, 144))
    found = contaminate(start, groups, is_anomaly, share=0.04, seed=0)
    assert is_anomaly[found.train].sum() == 3
    assert groups[found.test].tolist().count(1) == 50


def test_contamination_that_leaves_no_anomaly_to_test_on_is_refused() -> None:
    """The message has the share, the rows and how many anomalies that takes."""
    hashes, is_anomaly = rows(110, 10)
    with pytest.raises(TooFewRows, match=r"contamination 0.2 of 60 training rows needs > 15"):
        divide(hashes, is_anomaly, DataOptions(contamination=0.2), seed=0)


def test_papers_divide_all_rows_alike() -> None:
    """With anomalies not kept out, each role holds about the share that all rows hold."""
    hashes, is_anomaly = rows(4000, 600)
    found = divide(hashes, is_anomaly, PAPER, seed=0)
    for _, index in found.items():
        assert is_anomaly[index].mean() == pytest.approx(0.15, abs=0.04)


def test_equal_rows_part_only_when_a_paper_asks_for_it() -> None:
    """By default no content plays two roles; without keep_repeats_together most of it does."""
    hashes, is_anomaly = rows(2000, 0, distinct=100)
    kept = contents(divide(hashes, is_anomaly, DataOptions(), seed=0), hashes)
    assert sum(map(len, kept)) == len(set.union(*kept))
    leaky = contents(divide(hashes, is_anomaly, LEAKY, seed=0), hashes)
    assert len(leaky[0] & leaky[3]) > 90


def test_rows_that_became_equal_are_reunited_within_their_kind() -> None:
    """A test anomaly joins its equal in training, a test normal with the same cells does not."""
    roles = Roles(np.array([0, 1]), np.array([2]), np.array([3]), np.array([4, 5, 6]))
    hashes = np.array([7, 9, 1, 2, 9, 9, 3], dtype=np.uint64)
    is_anomaly = np.array([False, True, False, False, True, False, True])
    found = reunite(roles, hashes, is_anomaly, DataOptions())
    assert [index.tolist() for _, index in found.items()] == [[0, 1, 4], [2], [3], [5, 6]]
    assert reunite(roles, hashes, is_anomaly, LEAKY) is roles


@pytest.mark.parametrize("prevalence", [0.02, 0.2, 0.5, 0.9])
def test_a_thinned_test_has_the_prevalence(prevalence: float) -> None:
    """Whether anomalies or normals are too many, what stays has the asked share of anomalies."""
    hashes, is_anomaly = rows(4000, 1000)
    roles = divide(hashes, is_anomaly, DataOptions(), seed=0)
    found = thin_test(roles, is_anomaly, prevalence, seed=0)
    assert is_anomaly[found.test].mean() == pytest.approx(prevalence, abs=1e-3)
    assert set(found.test) < set(roles.test)
    assert found.train is roles.train
    kept = [is_anomaly[roles.test].sum(), (~is_anomaly[roles.test]).sum()]
    now = [is_anomaly[found.test].sum(), (~is_anomaly[found.test]).sum()]
    assert kept[0] == now[0] or kept[1] == now[1], "only one kind is thinned"


def test_thinning_needs_both_kinds() -> None:
    """Without anomalies no prevalence but 0 can be had."""
    hashes, is_anomaly = rows(100, 0)
    roles = divide(hashes, is_anomaly, DataOptions(), seed=0)
    with pytest.raises(TooFewRows, match=r"test_prevalence 0.2 needs anomalies and normals"):
        thin_test(roles, is_anomaly, 0.2, seed=0)
    assert thin_test(roles, is_anomaly, None, seed=0) is roles
