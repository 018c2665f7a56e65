"""The sentences say what the figures say."""

from typing import Any

import pytest

from amiss_export.decision import calibrate
from amiss_training.wording import chosen_by, peer_verdict, promise, readable, verdict


def test_promise_names_the_rate_the_rows_and_the_confidence() -> None:
    """Each method's sentence holds its alarm rate and n; only PAC speaks of confidence."""
    scores = range(1, 401)
    marginal, _ = calibrate(scores, alarm_rate=0.05)
    pac, _ = calibrate(scores, alarm_rate=0.05, confidence=0.95)
    default, _ = calibrate(scores)
    assert "5 % of fresh normals" in promise(marginal)
    assert "400 held-out normals" in promise(marginal)
    assert "confidence" not in promise(marginal)
    assert "95 % confidence" in promise(pac)
    assert "default" in promise(default)


def test_the_threshold_is_traced_to_held_out_normals() -> None:
    """The words name the rule, the rows and the rate, and that no test row had a say."""
    scores = range(1, 401)
    marginal, _ = calibrate(scores, alarm_rate=0.05)
    pac, _ = calibrate(scores, alarm_rate=0.05, confidence=0.95)
    assert chosen_by(marginal).startswith("conformal quantile of 400 held-out normals")
    assert chosen_by(pac).startswith("tolerance bound")
    assert "5 %" in chosen_by(pac)
    assert "no test row" in chosen_by(pac)


def test_a_threshold_from_a_mixture_promises_nothing_about_normals() -> None:
    """Where a paper leaves anomalies among the calibration rows, the words say so."""
    decision, _ = calibrate(range(1, 401), alarm_rate=0.05)
    assert "400 held-out rows (anomalies among them)" in chosen_by(decision, is_mixture=True)
    assert "5 % of fresh rows of such a mixture" in promise(decision, is_mixture=True)
    assert "normals" not in promise(decision, is_mixture=True)


@pytest.mark.parametrize(
    ("auroc", "words"),
    [(0.999, "almost perfectly"), (0.5, "hardly at all"), (0.1, "the wrong way round")],
)
def test_verdict_opens_with_how_well_it_separates(auroc: float, words: str) -> None:
    """The AUROC decides the words of the first sentence."""
    first, _, _ = verdict(_metrics(auroc=auroc), noun="image").partition(":")
    assert first.endswith(words)


def test_verdict_says_when_the_observed_share_breaks_the_promise() -> None:
    """A count out of its band reads OUTSIDE, one inside it does not."""
    assert "OUTSIDE" in verdict(_metrics(inside=False), noun="row")
    assert "OUTSIDE" not in verdict(_metrics(inside=True), noun="row")


def test_verdict_of_a_one_class_test_makes_no_claim_to_separate() -> None:
    """Without AUROC, band and recall the verdict says that it cannot be said."""
    text = verdict(_metrics(auroc=None, band=False, recall=None), noun="row")
    assert "cannot be said" in text
    assert "AUROC" not in text


def test_peers_that_beat_ours_are_named_best_first() -> None:
    """Every peer above ours is named with its AUROC, the best first; the others are not."""
    beaten, line = peer_verdict(
        0.9,
        {
            "knn": _peer(0.95, excludes_zero=True),
            "mahalanobis": _peer(0.97, excludes_zero=True),
            "pyod_pca": _peer(0.8, excludes_zero=True),
        },
    )
    assert beaten
    assert line.startswith("Mahalanobis (0.9700) and 5 nearest neighbours (0.9500) beat")
    assert "PyOD" not in line


def test_a_lead_that_may_be_chance_is_told_from_a_clear_one() -> None:
    """A peer whose interval leaves out 0 beats ours, others are ahead; none is left out."""
    beaten, line = peer_verdict(
        0.9,
        {
            "knn": _peer(0.91, excludes_zero=False),
            "mahalanobis": _peer(0.97, excludes_zero=True),
            "lof": _peer(0.92),
        },
    )
    clear, _, unclear = line.partition("leaves out 0.")
    assert beaten
    assert clear.startswith("Mahalanobis (0.9700) beats this detector's AUROC of 0.9000")
    assert "Local outlier factor (0.9200) and 5 nearest neighbours (0.9100) are ahead" in unclear
    assert "holds 0" in unclear


def test_no_better_peer_names_the_best_of_them() -> None:
    """An equal or failed peer does not beat ours."""
    beaten, line = peer_verdict(0.9, {"knn": _peer(0.9), "mahalanobis": _peer(None)})
    assert not beaten
    assert "5 nearest neighbours" in line


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.1235"), (12345.6, "12,346"), (-1500.0, "-1,500"), (1.2345e9, "1.234e+09")],
)
def test_numbers_read_well(value: float, text: str) -> None:
    """Thousands are grouped and only the very large take an exponent."""
    assert readable(value) == text


def _peer(auroc: float | None, *, excludes_zero: bool | None = None) -> dict[str, Any]:
    difference = None if excludes_zero is None else {"excludes_zero": excludes_zero}
    return {"auroc": auroc, "difference": difference}


def _metrics(
    *,
    auroc: float | None = 0.9,
    inside: bool = True,
    band: bool = True,
    recall: float | None = 0.5,
) -> dict[str, Any]:
    count = {"n_normals": 100, "observed": 4, "low": 1, "high": 12, "inside": inside}
    return {
        "auroc": auroc,
        "threshold": {"promise": "The threshold promises."},
        "band_99": count if band else None,
        "recall": recall,
        "n_anomalies": 10,
    }
