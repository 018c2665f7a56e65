"""The metrics, against formulas written another way."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amiss_export.bundle import Decision
from amiss_export.decision import DecisionRule, calibrate
from amiss_export.errors import BadInput
from amiss_training.evaluate import (
    evaluate,
    false_alarm_band,
    oracle_top_share,
    ranking_metrics,
)


def test_auroc_is_the_share_of_pairs_ranked_right() -> None:
    """AUROC equals the Mann-Whitney share over all pairs, ties counting half."""
    score, truth = _scores(seed=0)
    anomalous, normal = score[truth][:, None], score[~truth][None]
    pairs = (anomalous > normal).mean() + 0.5 * (anomalous == normal).mean()
    assert ranking_metrics(score, truth)["auroc"] == pytest.approx(pairs)


def test_auprc_is_the_mean_precision_at_each_anomaly() -> None:
    """AUPRC equals the precision above each anomaly's score, averaged over the anomalies."""
    score, truth = _scores(seed=1)
    precision = [truth[score >= s].mean() for s in score[truth]]
    assert ranking_metrics(score, truth)["auprc"] == pytest.approx(np.mean(precision))


def test_fpr_at_95_tpr_is_the_least_cost_of_catching_95_percent() -> None:
    """Over all thresholds that catch >= 95 % of anomalies, it is the smallest share of alarms."""
    score, truth = _scores(seed=2)
    costs = [
        (score[~truth] >= t).mean() for t in np.unique(score) if (score[truth] >= t).mean() >= 0.95
    ]
    assert ranking_metrics(score, truth)["fpr_at_95_tpr"] == pytest.approx(min(costs))


def test_oracle_f1_is_the_best_over_every_threshold() -> None:
    """oracle_best_f1 equals the maximum of F1 computed threshold by threshold."""
    score, truth = _scores(seed=3)
    best = max(_f1(score >= t, truth) for t in np.unique(score))
    assert ranking_metrics(score, truth)["oracle_best_f1"] == pytest.approx(best)


def test_threshold_figures_use_the_stored_threshold() -> None:
    """Precision, recall, F1 and the shares equal counts of score > stored threshold."""
    score, truth = _scores(seed=4)
    metrics, decision = _evaluate(score, truth)
    flagged = score > decision.threshold
    hits = (flagged & truth).sum()
    assert metrics["precision"] == pytest.approx(hits / flagged.sum())
    assert metrics["recall"] == pytest.approx(hits / truth.sum())
    assert metrics["f1"] == pytest.approx(_f1(flagged, truth))
    assert metrics["flagged_share"] == pytest.approx(flagged.mean())
    assert metrics["false_alarm_share"] == pytest.approx(flagged[~truth].mean())
    assert metrics["threshold"]["method"] == "marginal"
    assert metrics["threshold"]["k"] == decision.k


def test_held_out_normals_are_flagged_at_the_promised_rate() -> None:
    """The flagged share of fresh normals lies near the alarm rate: neither all nor none (D1)."""
    rng = np.random.default_rng(5)
    score = rng.exponential(size=4000).astype(np.float32)
    metrics, _ = _evaluate(score, np.zeros(4000, dtype=bool), draw=rng.exponential)
    assert metrics["false_alarm_share"] == pytest.approx(0.05, abs=0.03)
    assert metrics["band_99"]["inside"]


def test_anomalies_among_the_calibration_rows_leave_no_band() -> None:
    """A threshold from a mixture promises nothing about normals, and no figure pretends it does."""
    score, truth = _scores(seed=4)
    decision, calibration = calibrate(score, alarm_rate=0.05)
    metrics = evaluate(
        verdicts=DecisionRule(decision, calibration)(score),
        is_anomaly=truth,
        label=np.where(truth, "odd", "normal"),
        decision=decision,
        is_mixture=True,
    )
    assert metrics["band_99"] is None
    assert "anomalies among them" in metrics["threshold"]["promise"]


def test_per_class_counts_flagged_rows_not_all_rows() -> None:
    """A class's `flagged` counts its flagged rows only, matched row by row (D1)."""
    score = np.array([0, 9, 0, 9, 9], dtype=np.float32)
    truth = np.array([False, False, True, True, True])
    metrics, _ = _evaluate(score, truth, label=["a", "a", "b", "b", "c"])
    assert metrics["per_class"] == {
        "a": {
            "n": 2,
            "n_anomalies": 0,
            "flagged": 1,
            "flagged_share": 0.5,
            "mean_score": 4.5,
            "mean_reconstruction_error": None,
        },
        "b": {
            "n": 2,
            "n_anomalies": 2,
            "flagged": 1,
            "flagged_share": 0.5,
            "mean_score": 4.5,
            "mean_reconstruction_error": None,
        },
        "c": {
            "n": 1,
            "n_anomalies": 1,
            "flagged": 1,
            "flagged_share": 1.0,
            "mean_score": 9.0,
            "mean_reconstruction_error": None,
        },
    }


def test_mean_reconstruction_error_is_taken_class_by_class() -> None:
    """Each class has the mean of its own rows' errors."""
    score = np.array([0, 9, 0, 9], dtype=np.float32)
    truth = np.array([False, False, True, True])
    metrics, _ = _evaluate(score, truth, label=["a", "b", "a", "b"], error=np.array([1, 2, 3, 6.0]))
    errors = {name: c["mean_reconstruction_error"] for name, c in metrics["per_class"].items()}
    assert errors == {"a": 2.0, "b": 4.0}


def test_top_share_flags_that_share_of_the_test_scores() -> None:
    """The top 20 % of distinct scores are flagged, and precision and recall count them (D6)."""
    score = np.random.default_rng(0).permutation(100).astype(np.float32)
    truth = score >= 85
    found = oracle_top_share(score, truth, share=0.2)
    assert found is not None
    assert found["flagged"] == 20
    assert found["precision"] == pytest.approx(15 / 20)
    assert found["recall"] == 1.0
    assert found["f1"] == pytest.approx(30 / 35)
    assert "oracle" in found["threshold_chosen_by"]


def test_every_f1_says_how_its_threshold_was_chosen() -> None:
    """Stored and oracle figures name their rule; without a share there is no oracle (D5)."""
    score, truth = _scores(seed=0)
    plain, decision = _evaluate(score, truth)
    assert f"{decision.n} held-out normals" in plain["threshold_chosen_by"]
    assert plain["oracle_top_share"] is None
    paper, _ = _evaluate(score, truth, oracle_flag_share=0.2)
    assert "top 20 % of the test scores" in paper["oracle_top_share"]["threshold_chosen_by"]
    assert paper["f1"] == plain["f1"]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_an_impossible_share_is_refused(share: float) -> None:
    """A share of nothing, of everything or below raises BadInput naming the option."""
    with pytest.raises(BadInput, match="oracle_flag_share"):
        oracle_top_share(np.arange(4.0), np.arange(4) > 2, share=share)


@pytest.mark.parametrize(("confidence", "n"), [(None, 60), (0.95, 200)])
def test_band_holds_99_percent_of_simulated_false_alarms(confidence: float | None, n: int) -> None:
    """Of 4,000 simulated counts at least 98.6 % are inside, and the upper end is not wasted."""
    rng, m = np.random.default_rng(6), 150
    counts = []
    for _ in range(4000):
        decision, _ = calibrate(rng.normal(size=n), alarm_rate=0.05, confidence=confidence)
        counts.append(int((rng.normal(size=m) > decision.threshold).sum()))
    band = false_alarm_band(decision, n_normals=m, observed=0)
    assert band is not None
    low, high = band["low"], band["high"]
    seen = np.array(counts)
    assert ((seen >= low) & (seen <= high)).mean() >= 0.986
    assert (seen >= high).mean() > 0.003
    assert np.mean(seen) == pytest.approx(band["expected"], rel=0.05)


def test_more_alarms_than_the_band_are_said() -> None:
    """Shifted test normals fall outside the band, and a warning names the observed count."""
    rng = np.random.default_rng(7)
    score = (rng.normal(size=300) + 3).astype(np.float32)
    metrics, _ = _evaluate(score, np.zeros(300, dtype=bool))
    assert not metrics["band_99"]["inside"]
    assert any(str(metrics["band_99"]["observed"]) in w for w in metrics["warnings"])


def test_inverted_scores_warn_of_the_sign() -> None:
    """Scores fed with the wrong sign give AUROC 1 - a and a warning that says so (D2)."""
    score, truth = _scores(seed=8)
    right, _ = _evaluate(score, truth)
    wrong, _ = _evaluate(-score, truth)
    assert wrong["auroc"] == pytest.approx(1 - right["auroc"])
    assert any("sign" in w for w in wrong["warnings"])
    assert not any("sign" in w for w in right["warnings"])


@pytest.mark.parametrize(("shift", "word"), [(100.0, "nearly all"), (-100.0, "hardly any")])
def test_flagging_all_or_none_warns(shift: float, word: str) -> None:
    """A threshold below every test score, or above, is reported as degenerate."""
    score, truth = _scores(seed=9)
    metrics, _ = _evaluate((score + shift).astype(np.float32), truth)
    assert any(word in w for w in metrics["warnings"])


def test_flagging_nearly_all_of_nearly_only_anomalies_is_no_warning() -> None:
    """With 97 % anomalies and no false alarm, a flagged share of 97 % is not called degenerate."""
    score = np.r_[np.zeros(30), np.full(970, 9.0)].astype(np.float32)
    metrics, _ = _evaluate(score, score > 5)
    assert metrics["flagged_share"] == pytest.approx(0.97)
    assert metrics["warnings"] == []


@pytest.mark.parametrize("anomalous", [True, False])
def test_one_class_gives_nulls_and_a_note(anomalous: bool) -> None:
    """Test rows all of one kind leave the ranking figures None, with a note, as valid JSON."""
    score = np.linspace(0, 5, 40, dtype=np.float32)
    metrics, _ = _evaluate(score, np.full(40, anomalous))
    for name in ("auroc", "auprc", "fpr_at_95_tpr", "oracle_best_f1", "precision", "f1"):
        assert metrics[name] is None
    assert (metrics["recall"] is None) is not anomalous
    assert (metrics["false_alarm_share"] is None) is anomalous
    assert (metrics["band_99"] is None) is anomalous
    assert len(metrics["notes"]) == 1
    json.dumps(metrics, allow_nan=False)


def test_nothing_flagged_leaves_precision_undefined_and_recall_zero() -> None:
    """Without a flagged row the precision is None, not 0 and not an error."""
    score, truth = _scores(seed=10)
    metrics, _ = _evaluate((score - 100).astype(np.float32), truth)
    assert metrics["precision"] is None
    assert metrics["recall"] == 0.0
    assert metrics["f1"] == 0.0
    assert "precision" in metrics["notes"][0]


def test_few_rows_warn() -> None:
    """Fewer than 20 anomalies are called rough."""
    score, truth = _scores(seed=11, anomalies=5)
    metrics, _ = _evaluate(score, truth)
    assert any("Only 5 test anomalies" in w for w in metrics["warnings"])


def test_lengths_that_differ_are_refused() -> None:
    """A truth shorter than the scores raises BadInput naming both lengths."""
    score, truth = _scores(seed=12)
    with pytest.raises(BadInput, match=r"260 scores, is_anomaly \(259,\)"):
        _evaluate(score, truth[1:])


def _scores(seed: int, *, anomalies: int = 60) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Overlapping scores rounded so that ties occur."""
    rng = np.random.default_rng(seed)
    normal, anomalous = rng.normal(size=200), rng.normal(size=anomalies) + 1.2
    truth = np.arange(200 + anomalies) >= 200
    return np.round(np.r_[normal, anomalous], 1).astype(np.float32), truth


def _f1(flagged: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (flagged & truth).sum() / (flagged.sum() + truth.sum()))


def _evaluate(
    score: NDArray[np.float32],
    truth: NDArray[np.bool_],
    *,
    label: list[str] | None = None,
    draw: Callable[..., NDArray[np.float64]] | None = None,
    error: NDArray[np.float64] | None = None,
    oracle_flag_share: float | None = None,
) -> tuple[dict[str, Any], Decision]:
    """Metrics under the 5 % threshold of 200 calibration normals whose scores `draw` gives."""
    draw = draw or np.random.default_rng(99).normal
    decision, calibration = calibrate(draw(size=200), alarm_rate=0.05)
    verdicts = DecisionRule(decision, calibration)(score)
    names = label or np.where(truth, "anomaly", "normal").tolist()
    metrics = evaluate(
        verdicts=verdicts,
        is_anomaly=truth,
        label=names,
        decision=decision,
        reconstruction_error=error,
        oracle_flag_share=oracle_flag_share,
    )
    return metrics, decision
