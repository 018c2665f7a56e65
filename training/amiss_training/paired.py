"""How far apart two scores rank the same rows, and how sure that is."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

CONFIDENCE = 0.95

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """AUROC of ours minus theirs, its 95 % interval low..high, and whether that leaves out 0."""

    value: float
    low: float
    high: float
    excludes_zero: bool

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def paired_difference(
    ours: NDArray[Any], theirs: NDArray[Any], is_anomaly: Bools
) -> PairedDifference | None:
    """AUROC(ours) - AUROC(theirs) on the same rows; None with fewer than 2 rows of a kind.

    ours, theirs: (n,) higher = more anomalous. The interval is DeLong's for correlated areas
    (DeLong, DeLong & Clarke-Pearson 1988). Model and training rows are taken as given: another
    seed or split may move the difference further.
    """
    if min(is_anomaly.sum(), (~is_anomaly).sum()) < 2:
        return None
    anomalous, normal = zip(
        _components(ours, is_anomaly), _components(theirs, is_anomaly), strict=True
    )
    (caught_ours, caught_theirs), (kept_ours, kept_theirs) = anomalous, normal
    value = float(caught_ours.mean() - caught_theirs.mean())
    variance = sum(
        (a - b).var(ddof=1) / len(a)
        for a, b in ((caught_ours, caught_theirs), (kept_ours, kept_theirs))
    )
    reach = float(norm.ppf(0.5 + CONFIDENCE / 2) * np.sqrt(variance))
    low, high = value - reach, value + reach
    return PairedDifference(value, low, high, excludes_zero=not low <= 0 <= high)


def _components(score: NDArray[Any], is_anomaly: Bools) -> tuple[Floats, Floats]:
    """Share of normals below each anomaly (m,), and of anomalies above each normal (n,).

    DeLong's structural components by midranks T (Sun & Xu 2014, algorithm 2):
    V10_i = (T_all(x_i) - T_anomalies(x_i)) / n,  V01_j = 1 - (T_all(y_j) - T_normals(y_j)) / m.
    The mean of either is the AUROC.
    """
    m, n = int(is_anomaly.sum()), int((~is_anomaly).sum())
    among_all = rankdata(score)
    caught = (among_all[is_anomaly] - rankdata(score[is_anomaly])) / n
    kept = 1.0 - (among_all[~is_anomaly] - rankdata(score[~is_anomaly])) / m
    return caught, kept
