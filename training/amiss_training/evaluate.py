"""How well verdicts agree with the truth: the figures every report gives.

A figure that the test rows cannot support is None, and a note says why.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from amiss_export.bundle import Decision
from amiss_export.decision import Verdicts
from amiss_export.errors import BadInput
from amiss_training.wording import chosen_by, promise

FEW_ROWS = 20  # below it one row moves a share by 5 points
FLAG_ALL, FLAG_NONE = 0.95, 0.001

Bools = NDArray[np.bool_]
Labels = Sequence[str] | NDArray[Any]


def evaluate(
    *,
    verdicts: Verdicts,
    is_anomaly: Bools,
    label: Labels,
    decision: Decision,
    reconstruction_error: NDArray[Any] | None = None,
    oracle_flag_share: float | None = None,
    is_mixture: bool = False,
) -> dict[str, Any]:
    """Metrics of n test rows, ready for JSON; undefined ones are None and `notes` says why.

    is_anomaly: (n,) the truth, label: (n,) the class each row came from. Precision, recall and F1
    are at the stored threshold; whatever picks its threshold by the test rows is named oracle_.
    reconstruction_error: (n,) of each row, averaged by class. oracle_flag_share: also flag that
    share of the test rows, as some papers do. is_mixture: anomalies are among the calibration rows,
    so that the threshold promises nothing about normals: `band_99` is None.
    Raises BadInput when the arrays differ in length, are empty or hold a score that is no number.
    """
    truth, labels = _checked(verdicts, is_anomaly, label)
    score, flagged = verdicts.score, verdicts.is_anomaly
    anomalies = int(truth.sum())
    normals = len(truth) - anomalies
    metrics: dict[str, Any] = {
        "n_test": len(truth),
        "n_anomalies": anomalies,
        "prevalence": anomalies / len(truth),
        **ranking_metrics(score, truth),
        **threshold_metrics(flagged, truth),
        "threshold_chosen_by": chosen_by(decision, is_mixture=is_mixture),
        "threshold": {
            **decision.model_dump(mode="json"),
            "promise": promise(decision, is_mixture=is_mixture),
        },
        "oracle_top_share": oracle_top_share(score, truth, share=oracle_flag_share),
        "band_99": None
        if is_mixture
        else false_alarm_band(decision, n_normals=normals, observed=int((flagged & ~truth).sum())),
        "per_class": _per_class(score, flagged, truth, labels, reconstruction_error),
    }
    metrics["notes"] = _notes(normals, anomalies, int(flagged.sum()))
    metrics["warnings"] = _warnings(metrics)
    return metrics


def ranking_metrics(score: NDArray[Any], is_anomaly: Bools) -> dict[str, float | None]:
    """AUROC, AUPRC, FPR at 95 % TPR and the oracle F1; None where a class has no rows.

    score: (n,) higher = more anomalous. oracle_best_f1 is the best F1 over all thresholds, chosen
    with the test labels: a ceiling, not a result.
    """
    if is_anomaly.all() or not is_anomaly.any():
        return dict.fromkeys(("auroc", "auprc", "fpr_at_95_tpr", "oracle_best_f1"))
    fpr, tpr, _ = roc_curve(is_anomaly, score, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(is_anomaly, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {
        "auroc": float(roc_auc_score(is_anomaly, score)),
        "auprc": float(average_precision_score(is_anomaly, score)),
        "fpr_at_95_tpr": float(fpr[np.searchsorted(tpr, 0.95)]),
        "oracle_best_f1": float(f1.max()),
    }


def oracle_top_share(
    score: NDArray[Any], is_anomaly: Bools, *, share: float | None
) -> dict[str, Any] | None:
    """Precision, recall and F1 when the top `share` of the TEST scores is flagged; None without.

    The protocol of DAGMM and ALAD: it knows how many test rows are anomalies, so it is an oracle.
    Rows that tie with the last one are flagged as well; `flagged` counts them all.
    """
    if share is None:
        return None
    if not 0 < share < 1:
        raise BadInput(f"oracle_flag_share must lie between 0 and 1, got {share}")
    flagged = score >= np.quantile(score, 1 - share)
    figures = threshold_metrics(flagged, is_anomaly)
    return {
        "share": share,
        "flagged": int(flagged.sum()),
        **{name: figures[name] for name in ("precision", "recall", "f1")},
        "threshold_chosen_by": f"oracle: the top {100 * share:g} % of the test scores themselves",
    }


def false_alarm_band(
    decision: Decision, *, n_normals: int, observed: int
) -> dict[str, float | bool] | None:
    """Where 99 % of the false-alarm counts among `n_normals` fresh normals fall; None without any.

    The share of normals above the k-th of n exchangeable scores is Beta(n+1-k, k), so the count is
    BetaBinomial(n_normals, n+1-k, k); the interval leaves at most 0.5 % on each side. With tied
    scores fewer alarms than that are to be expected (Vovk 2012).
    """
    if n_normals == 0:
        return None
    d = decision
    alarms = betabinom(n_normals, d.n + 1 - d.k, d.k)
    low, high = int(alarms.ppf(0.005)), int(alarms.ppf(0.995))
    return {
        "n_normals": n_normals,
        "observed": observed,
        "expected": float(alarms.mean()),
        "low": low,
        "high": high,
        "inside": low <= observed <= high,
    }


def _checked(verdicts: Verdicts, is_anomaly: Bools, label: Labels) -> tuple[Bools, NDArray[Any]]:
    truth, labels = np.asarray(is_anomaly, dtype=bool), np.asarray(label, dtype=str)
    n = len(verdicts.score)
    if n == 0 or truth.shape != (n,) or labels.shape != (n,):
        raise BadInput(
            f"evaluation needs one truth and one label for each score, got {n} scores, "
            f"is_anomaly {truth.shape} and label {labels.shape}"
        )
    if not np.isfinite(verdicts.score).all():
        row = int(np.flatnonzero(~np.isfinite(verdicts.score))[0])
        raise BadInput(f"expected finite scores, got {verdicts.score[row]} in test row {row}")
    return truth, labels


def threshold_metrics(flagged: Bools, truth: Bools) -> dict[str, float | None]:
    """Precision, recall, F1, flagged share and false-alarm share; None where a class is absent."""
    both = truth.any() and not truth.all()

    def defined(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return {
        "precision": defined(precision_score(truth, flagged, zero_division=np.nan))
        if both
        else None,
        "recall": defined(recall_score(truth, flagged, zero_division=np.nan)),
        "f1": defined(f1_score(truth, flagged, zero_division=np.nan)) if both else None,
        "flagged_share": float(flagged.mean()),
        "false_alarm_share": None if truth.all() else float(flagged[~truth].mean()),
    }


def _per_class(
    score: NDArray[Any],
    flagged: Bools,
    truth: Bools,
    labels: NDArray[Any],
    error: NDArray[Any] | None,
) -> dict[str, dict[str, float | None]]:
    names, code = np.unique(labels, return_inverse=True)
    counts = np.bincount(code)
    sums = {
        "flagged": np.bincount(code, weights=flagged),
        "anomalies": np.bincount(code, weights=truth),
        "score": np.bincount(code, weights=score.astype(np.float64)),
    }
    errors = None if error is None else np.bincount(code, weights=error.astype(np.float64)) / counts
    return {
        str(name): {
            "n": int(n),
            "n_anomalies": int(sums["anomalies"][i]),
            "flagged": int(sums["flagged"][i]),
            "flagged_share": float(sums["flagged"][i] / n),
            "mean_score": float(sums["score"][i] / n),
            "mean_reconstruction_error": None if errors is None else float(errors[i]),
        }
        for i, (name, n) in enumerate(zip(names, counts, strict=True))
    }


def _notes(normals: int, anomalies: int, flagged: int) -> list[str]:
    notes = []
    if anomalies == 0:
        notes.append("The test rows hold no anomaly: only the false alarms can be judged.")
    elif normals == 0:
        notes.append("The test rows hold no normal: only the recall can be judged.")
    elif flagged == 0:
        notes.append("Nothing was flagged, so the precision is undefined.")
    return notes


def _warnings(m: dict[str, Any]) -> list[str]:
    warnings = []
    if m["auroc"] is not None and m["auroc"] < 0.5:
        warnings.append(
            f"AUROC {m['auroc']:.3f} is below 0.5: anomalies score lower than normals; probably a "
            "sign error, or the anomalies are simpler than the normals."
        )
    # Flagging nearly all is right where nearly all are anomalies, and the other way round.
    if m["flagged_share"] > FLAG_ALL and (m["false_alarm_share"] or 0) > 0.5:
        warnings.append(f"It flags {100 * m['flagged_share']:.1f} % of the test rows: nearly all.")
    if m["flagged_share"] < FLAG_NONE and m["recall"] is not None and m["recall"] < 0.5:
        warnings.append(f"It flags {100 * m['flagged_share']:.2f} % of the test rows: hardly any.")
    for kind, n in (("normals", m["n_test"] - m["n_anomalies"]), ("anomalies", m["n_anomalies"])):
        if 0 < n < FEW_ROWS:
            warnings.append(f"Only {n} test {kind}: every share of them is rough.")
    band = m["band_99"]
    if band and not band["inside"]:
        warnings.append(
            f"{band['observed']} of {band['n_normals']} test normals are flagged, outside the 99 % "
            f"band of {band['low']} to {band['high']}: the test normals are unlike the calibration "
            "normals" + (", or many scores are tied." if m["threshold"]["ties"] else ".")
        )
    return warnings
