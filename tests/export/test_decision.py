"""Thresholds keep their promise, and verdicts follow the formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from amiss_export.decision import (
    TOLERANCE,
    DecisionRule,
    calibrate,
    rows_needed,
    smallest_alarm_rate,
)
from amiss_export.errors import AmissError, BadInput, TooFewRows


def test_marginal_threshold_keeps_its_rate_on_average() -> None:
    """Over 2,000 calibrations the mean false-alarm rate is (n+1-k)/(n+1), never above alpha."""
    rng = np.random.default_rng(0)
    for n, rate in ((19, 0.05), (100, 0.05), (250, 0.01)):
        thresholds = [calibrate(rng.normal(size=n), rate)[0] for _ in range(2_000)]
        false_alarms = np.array([0.5 * math.erfc(d.threshold / math.sqrt(2)) for d in thresholds])
        k = thresholds[0].k
        exact = (n + 1 - k) / (n + 1)
        assert exact <= rate
        error = beta.std(n + 1 - k, k) / math.sqrt(2_000)
        assert abs(false_alarms.mean() - exact) < 4 * error


def test_pac_threshold_breaks_its_bound_as_rarely_as_promised() -> None:
    """With confidence 0.9 the true rate exceeds alpha in at most 10 % of calibrations."""
    rng = np.random.default_rng(1)
    n, rate, confidence = 200, 0.05, 0.9
    decisions = [calibrate(rng.normal(size=n), rate, confidence)[0] for _ in range(2_000)]
    rates = np.array([0.5 * math.erfc(d.threshold / math.sqrt(2)) for d in decisions])
    broken = (rates > rate).mean()
    assert broken <= 0.1 + 4 * math.sqrt(0.1 * 0.9 / 2_000)
    assert decisions[0].method == "pac"
    assert broken > 0.02, "the bound is not vacuous"


@given(
    n=st.integers(1, 3_000),
    rate=st.floats(0.001, 0.5),
    confidence=st.floats(0.5, 0.999),
)
def test_order_statistics_match_scipy(n: int, rate: float, confidence: float) -> None:
    """k is the smallest with BinCDF(k-1) >= c, and the refusal starts exactly below it."""
    scores = np.arange(n, dtype=np.float32)
    need = rows_needed(rate, confidence)
    assert (n >= need) == (binom.cdf(n - 1, n, 1 - rate) >= confidence - 1e-9)
    if n < need or n < 2:
        return
    k = calibrate(scores, rate, confidence)[0].k
    assert binom.cdf(k - 1, n, 1 - rate) >= confidence - 1e-9
    assert binom.cdf(k - 2, n, 1 - rate) < confidence + 1e-9


def test_too_few_rows_are_refused_naming_how_many_are_needed() -> None:
    """18 rows cannot support 0.05 and the message says 19; 19 rows can."""
    with pytest.raises(TooFewRows, match="needs >= 19 calibration rows, got 18"):
        calibrate(np.arange(18.0), 0.05)
    assert calibrate(np.arange(19.0), 0.05)[0].threshold == 18.0
    with pytest.raises(TooFewRows, match=r"with confidence 0\.95 needs >= 59 calibration rows"):
        calibrate(np.arange(58.0), 0.05, 0.95)


def test_an_unasked_rate_is_one_percent_or_what_the_rows_support() -> None:
    """Without a rate 1,000 rows get 0.01 and 50 rows get 1/51, recorded as the default."""
    assert smallest_alarm_rate(1_000) == 0.01
    decision, _ = calibrate(np.arange(50.0))
    assert decision.alarm_rate == pytest.approx(1 / 51)
    assert decision.alarm_rate_source == "default"
    assert decision.k == 50


@pytest.mark.parametrize("n", [10, 59, 299, 1_000, 4_000])
def test_the_default_rate_is_always_supported(n: int) -> None:
    """The rate chosen for n rows is never refused for n rows, with or without confidence."""
    for confidence in (None, 0.9, 0.95, 0.99):
        assert rows_needed(smallest_alarm_rate(n, confidence), confidence) <= n
        calibrate(np.arange(float(n)), None, confidence)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    """A rate that is no probability is refused with its value."""
    with pytest.raises(BadInput, match="between 0 and 1"):
        calibrate(np.arange(100.0), rate)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, math.nan])
def test_a_confidence_out_of_range_is_refused(confidence: float) -> None:
    """A confidence that is no probability is refused by all who are given it."""
    for refuses in (
        lambda: smallest_alarm_rate(100, confidence),
        lambda: rows_needed(0.05, confidence),
        lambda: calibrate(np.arange(100.0), None, confidence),
    ):
        with pytest.raises(BadInput, match="confidence must lie between 0 and 1"):
            refuses()


def test_rates_near_0_and_1_are_answered() -> None:
    """A rate of 1e-17 needs more rows than there are; one of 1 - 1e-12 takes the lowest score."""
    with pytest.raises(TooFewRows, match="calibration rows, got 50"):
        calibrate(np.arange(50.0), 1e-17, 0.9)
    assert calibrate(np.arange(50.0), 1 - 1e-12)[0].threshold == 0


def test_scores_that_tell_nothing_are_refused() -> None:
    """Equal, absent or non-finite calibration scores are refused."""
    with pytest.raises(BadInput, match="all 100 calibration scores equal"):
        calibrate(np.ones(100), 0.05)
    with pytest.raises(BadInput, match="finite scores"):
        calibrate(np.array([1.0, np.nan]), 0.05)
    for few in (np.array([]), np.array([1.0])):
        with pytest.raises(TooFewRows, match="needs >= 2 held-out normal rows"):
            calibrate(few, 0.05)


def test_verdicts_follow_the_formulas() -> None:
    """p counts scores >= s - tol, normalized is 0 / 0.5 / 1 at median / threshold / far out."""
    rng = np.random.default_rng(2)
    decision, ordered = calibrate(rng.normal(size=400), 0.05)
    rule = DecisionRule(decision, ordered)
    asked = np.array([decision.median, decision.threshold, 50.0, -50.0], dtype=np.float32)
    found = rule(asked)
    tol = TOLERANCE * decision.scale
    expected_p = [(1 + sum(c >= s - tol for c in ordered.tolist())) / 401 for s in asked.tolist()]
    assert found.p_value == pytest.approx(expected_p)
    assert found.normalized_score == pytest.approx([0.0, 0.5, 1.0, 0.0], abs=1e-6)
    assert found.is_anomaly.tolist() == [False, False, True, False]


@given(scores=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=50))
def test_alarm_and_p_value_agree(scores: list[float]) -> None:
    """A row alarms exactly when its p-value is at most the rate the threshold really has."""
    decision, ordered = calibrate(np.random.default_rng(3).normal(size=200), 0.05)
    found = DecisionRule(decision, ordered)(np.array(scores, dtype=np.float32))
    reached = (decision.n + 1 - decision.k) / (decision.n + 1)
    assert (found.is_anomaly == (found.p_value <= np.float32(reached) + 1e-7)).all()


def test_a_runtime_difference_within_tolerance_changes_no_verdict() -> None:
    """A score that another runtime puts 0.9 tolerances above the threshold is no alarm."""
    decision, ordered = calibrate(np.linspace(0, 1, 101), 0.05)
    rule = DecisionRule(decision, ordered)
    just_above = np.float32(decision.threshold + 0.9 * TOLERANCE * decision.scale)
    assert not rule(np.array([just_above])).is_anomaly[0]


def test_a_score_that_is_no_number_is_no_verdict() -> None:
    """NaN and infinity raise, naming the row: they never read as normal."""
    rule = DecisionRule(*calibrate(np.arange(100.0), 0.05))
    for bad in (math.nan, math.inf):
        with pytest.raises(AmissError, match="row 1 is not a finite number"):
            rule(np.array([0.0, bad], dtype=np.float32))


def test_ties_at_the_threshold_stay_conservative() -> None:
    """With most scores tied at the top nothing at the tie alarms and the ties are recorded."""
    decision, ordered = calibrate(np.r_[np.arange(50.0), np.full(50, 99.0)], 0.05)
    assert decision.ties == 49
    found = DecisionRule(decision, ordered)(np.array([99.0], dtype=np.float32))
    assert not found.is_anomaly[0]
    assert found.p_value[0] == pytest.approx(51 / 101)
