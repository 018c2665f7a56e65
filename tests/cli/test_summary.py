"""The lines a person reads first say all that the figures say."""

from typing import Any

from amiss_cli.summary import summary


def test_a_peer_that_is_clearly_ahead_is_called_so() -> None:
    """BEHIND stands where the interval leaves out 0 below, nothing where it holds 0."""
    lines = summary(_metrics(), {"knn": _peer(-0.05), "lof": _peer(0.001), "ecod": _peer(0.2)})
    knn, lof, ecod = (next(x for x in lines if x.startswith(n)) for n in ("knn", "lof", "ecod"))
    assert knn.endswith("-0.0500 (-0.0600 to -0.0400) BEHIND")
    assert lof.endswith("+0.0010 (-0.0090 to +0.0110)")
    assert ecod.endswith("ahead")


def test_a_failed_peer_says_why() -> None:
    """Its line holds the reason instead of figures."""
    failed = {"auroc": None, "auprc": None, "difference": None, "note": "failed: no"}
    assert any(x.endswith("failed: no") for x in summary(_metrics(), {"knn": failed}))


def test_every_f1_line_says_how_its_threshold_was_chosen() -> None:
    """The stored threshold's line and the oracle's each end with their rule (D5)."""
    rule = "oracle: the top 20 % of the test scores themselves"
    top = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "threshold_chosen_by": rule}
    with_f1 = [x for x in summary({**_metrics(), "oracle_top_share": top}, {}) if " F1 " in x]
    assert len(with_f1) == 2
    assert with_f1[0].endswith("(held-out normals)")
    assert with_f1[1].endswith(f"({rule})")


def test_warnings_come_last() -> None:
    """Each warning is a line of its own, marked as one."""
    lines = summary({**_metrics(), "warnings": ["flags nearly all"]}, {})
    assert lines[-1] == "warning: flags nearly all"


def _peer(value: float) -> dict[str, Any]:
    low, high = value - 0.01, value + 0.01
    difference = {"value": value, "low": low, "high": high, "excludes_zero": not low <= 0 <= high}
    return {"auroc": 0.9, "auprc": 0.8, "difference": difference, "note": ""}


def _metrics() -> dict[str, Any]:
    return {
        "auroc": 0.85,
        "auprc": None,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "threshold_chosen_by": "held-out normals",
        "oracle_top_share": None,
        "threshold": {"threshold": 1.5},
        "band_99": None,
        "warnings": [],
    }
