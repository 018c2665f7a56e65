"""From a score to an answer: calibration on held-out normals and the rule that uses it.

The one place for engine, offline scoring and reports. Formulas: split (inductive) conformal
prediction, Vovk et al. 2005; tolerance bound, Wilks 1941 / Vovk 2012.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from amiss_export.bundle import Decision
from amiss_export.errors import AmissError, BadInput, TooFewRows

DEFAULT_ALARM_RATE = 0.01
TOLERANCE = 1e-6  # of Decision.scale: what runtimes and batch sizes may differ by

Floats = NDArray[np.float32]


class Verdicts(NamedTuple):
    """Answers for n rows, each array (n,).

    score: higher = more anomalous. normalized_score: 0 median normal, 0.5 threshold, 1 at most.
    p_value: share of normals at least as anomalous. is_anomaly: score above the threshold.
    """

    score: Floats
    normalized_score: Floats
    p_value: Floats
    is_anomaly: NDArray[np.bool_]


class DecisionRule:
    """The verdict for a score, given the calibration normals' sorted scores (n,)."""

    def __init__(self, decision: Decision, calibration: Floats) -> None:
        self.decision = decision
        self._calibration = calibration.astype(np.float64)

    def __call__(self, scores: Floats) -> Verdicts:
        """Verdicts for (n,) scores. Raises on a score that is not finite: it is no verdict."""
        scores = np.asarray(scores, dtype=np.float32)
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise AmissError(f"the model's score of row {row} is not a finite number")
        d = self.decision
        wide = scores.astype(np.float64)
        tol = TOLERANCE * d.scale
        at_least = d.n - np.searchsorted(self._calibration, wide - tol, side="left")
        return Verdicts(
            score=scores,
            normalized_score=_normalize(wide, d),
            p_value=((1 + at_least) / (d.n + 1)).astype(np.float32),
            is_anomaly=wide > d.threshold + tol,
        )


def calibrate(
    scores: ArrayLike, alarm_rate: float | None = None, confidence: float | None = None
) -> tuple[Decision, Floats]:
    """Threshold that at most `alarm_rate` of fresh normal rows exceed on average; sorted scores.

    scores: (n,) of held-out NORMAL rows, higher = more anomalous. Marginal by default:
    k = ceil((n+1)(1-alarm_rate)). With `confidence` c the bound holds with probability c over the
    calibration draw: smallest k with BinCDF(k-1; n, 1-alarm_rate) >= c.
    alarm_rate None means max(0.01, the smallest rate the rows support).
    Raises TooFewRows, naming the rows needed, when n cannot support the rate.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float32))
    n = len(ordered)
    if not np.isfinite(ordered).all():
        raise BadInput("calibration needs finite scores of normal rows, got one that is not")
    if n < 2:
        raise TooFewRows(f"calibration needs >= 2 held-out normal rows, got {n}; add normal rows")
    rate = smallest_alarm_rate(n, confidence) if alarm_rate is None else alarm_rate
    if not 0 < rate < 1:
        raise BadInput(f"alarm_rate must lie between 0 and 1, got {rate}")
    need = rows_needed(rate, confidence)
    if n < need:
        raise TooFewRows(
            f"alarm rate {rate:g}{_with(confidence)} needs >= {need} calibration rows, got {n}; "
            "raise the rate or add normal rows"
        )
    k = _order(n, rate, confidence)
    threshold = float(ordered[k - 1])
    return (
        Decision(
            method="marginal" if confidence is None else "pac",
            alarm_rate=rate,
            alarm_rate_source="default" if alarm_rate is None else "asked",
            confidence=confidence,
            n=n,
            k=k,
            threshold=threshold,
            median=float(np.median(ordered)),
            scale=_scale(ordered),
            ties=int((ordered == np.float32(threshold)).sum()) - 1,
        ),
        ordered,
    )


def rows_needed(alarm_rate: float, confidence: float | None = None) -> int:
    """Smallest number of calibration rows that supports the rate."""
    if confidence is None:
        return max(1, math.ceil(1 / alarm_rate - 1 - 1e-9))
    _check_confidence(confidence)
    return math.ceil(math.log1p(-confidence) / math.log1p(-alarm_rate) - 1e-9)


def smallest_alarm_rate(n: int, confidence: float | None = None) -> float:
    """max(0.01, the smallest alarm rate that n calibration rows support)."""
    if confidence is None:
        return max(DEFAULT_ALARM_RATE, 1 / (n + 1))
    _check_confidence(confidence)
    return max(DEFAULT_ALARM_RATE, 1 - math.pow(1 - confidence, 1 / n))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise BadInput(f"confidence must lie between 0 and 1, got {confidence}")


def _order(n: int, rate: float, confidence: float | None) -> int:
    if confidence is None:
        return max(1, math.ceil((n + 1) * (1 - rate) - 1e-9))
    return _binomial_quantile(confidence, n, 1 - rate) + 1


def _binomial_quantile(q: float, n: int, p: float) -> int:
    """Smallest x with BinCDF(x; n, p) >= q, summed in logs (scipy's binom.ppf without scipy)."""
    log_p, log_1p = math.log(p), math.log1p(-p)
    total = 0.0
    for x in range(n + 1):
        log_mass = math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(n - x + 1)
        total += math.exp(log_mass + x * log_p + (n - x) * log_1p)
        if total >= q - 1e-12:
            return x
    return n


def _scale(ordered: Floats) -> float:
    """Interquartile range; the whole range when half of the scores are equal."""
    wide = ordered.astype(np.float64)
    low, high = np.quantile(wide, [0.25, 0.75])
    scale = float(high - low) or float(wide[-1] - wide[0])
    if scale <= 0:
        raise BadInput(
            f"all {len(ordered)} calibration scores equal {wide[0]:g}: the detector tells no row "
            "from another; train longer or check the data"
        )
    return scale


def _normalize(scores: NDArray[np.float64], d: Decision) -> Floats:
    spread = d.threshold - d.median
    if spread <= 0:  # so many ties that the threshold is the median: only the side is known
        return np.where(scores > d.threshold, 1.0, 0.5).astype(np.float32)
    return np.clip(0.5 + 0.5 * (scores - d.threshold) / spread, 0, 1).astype(np.float32)


def _with(confidence: float | None) -> str:
    return "" if confidence is None else f" with confidence {confidence:g}"
