"""Five simple detectors that ours has to beat, fitted on the same normals.

A detector that loses to one of them must say so; a peer that fails says why in its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyod.models import pca as pyod
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from amiss_export.errors import BadInput
from amiss_training.evaluate import ranking_metrics

NEIGHBOURS = 5
EIGENVALUE_FLOOR = 1e-4  # of the largest

Features = NDArray[np.float32]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Peer:
    """scores: (m,) higher = more anomalous, or None when the peer failed and `note` says why."""

    scores: Scores | None
    note: str


Scorer = Callable[[Features, Features], Peer]


def peer_scores(
    normals: Features, test: Features, *, seed: int, max_neighbour_rows: int = 20_000
) -> dict[str, Peer]:
    """Every peer's scores of the test rows, by name. Deterministic for one seed.

    normals: (n, f) standardised features of every normal our detector saw, test: (m, f) the same
    features of the test rows. kNN looks at max_neighbour_rows normals at most, drawn by the seed.
    Raises BadInput when the two do not fit together.
    """
    if normals.ndim != 2 or test.ndim != 2 or normals.shape[1] != test.shape[1]:
        raise BadInput(
            f"peers need normals (n, f) and test (m, f), got {normals.shape} and {test.shape}"
        )
    if len(normals) < 2 or len(test) < 1:
        raise BadInput(
            f"peers need >= 2 normals and >= 1 test row, got {len(normals)} and {len(test)}"
        )
    scorers: dict[str, Scorer] = {
        "isolation_forest": partial(_isolation_forest, seed=seed),
        "pca_residual": _pca_residual,
        "pyod_pca": partial(_pyod_pca, seed=seed),
        "mahalanobis": _mahalanobis,
        "knn": partial(_knn, seed=seed, most=max_neighbour_rows),
    }
    return {name: _guarded(scorer, normals, test) for name, scorer in scorers.items()}


def peer_table(
    scores: Mapping[str, Peer], is_anomaly: NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    """{"auroc", "auprc", "note"} by peer, None where the peer failed or a class has no rows."""
    table = {}
    for name, peer in scores.items():
        metrics = {} if peer.scores is None else ranking_metrics(peer.scores, is_anomaly)
        table[name] = {
            "auroc": metrics.get("auroc"),
            "auprc": metrics.get("auprc"),
            "note": peer.note,
        }
    return table


def _guarded(scorer: Scorer, normals: Features, test: Features) -> Peer:
    """The peer, or why there is none: a report must not fail because a comparison does."""
    try:
        peer = scorer(normals, test)
    except Exception as error:
        return Peer(None, f"failed: {type(error).__name__}: {error}")
    if peer.scores is not None and not np.isfinite(peer.scores).all():
        bad = int((~np.isfinite(peer.scores)).sum())
        return Peer(None, f"failed: {bad} of {len(peer.scores)} scores are not finite")
    return peer


def _isolation_forest(normals: Features, test: Features, *, seed: int) -> Peer:
    """Minus the mean isolation depth (Liu, Ting & Zhou 2008)."""
    forest = IsolationForest(n_estimators=100, random_state=seed).fit(normals)
    return Peer(-forest.score_samples(test), "100 trees of 256 rows")


def _pca_residual(normals: Features, test: Features) -> Peer:
    """Squared distance from the subspace that holds 95 % of the normals' variance."""
    pca = PCA(n_components=0.95).fit(normals.astype(np.float64))
    wide = test.astype(np.float64)
    residual = wide - pca.inverse_transform(pca.transform(wide))
    return Peer((residual**2).sum(axis=1), f"{pca.n_components_} of {test.shape[1]} components")


def _pyod_pca(normals: Features, test: Features, *, seed: int) -> Peer:
    """PyOD's sum of distances to the eigenvectors, each over its share of variance.

    Shares of zero (constant or dependent columns) would make every score infinite, so only as many
    components are kept as the normals have directions.
    """
    wide = normals.astype(np.float64)
    shares = PCA().fit(StandardScaler().fit_transform(wide)).explained_variance_ratio_
    rank = int((shares > 1e-9).sum())
    detector = pyod.PCA(n_components=rank, svd_solver="full", random_state=seed).fit(wide)
    scores = detector.decision_function(test.astype(np.float64))
    return Peer(scores, f"{rank} of {test.shape[1]} components, weighted by variance")


def _mahalanobis(normals: Features, test: Features) -> Peer:
    """Squared Mahalanobis distance; directions of hardly any variance count with a floor."""
    pca = PCA().fit(normals.astype(np.float64))
    floor = EIGENVALUE_FLOOR * pca.explained_variance_.max()
    centred = test.astype(np.float64) - pca.mean_
    projected = centred @ pca.components_.T
    outside = np.maximum((centred**2).sum(axis=1) - (projected**2).sum(axis=1), 0)
    inside = (projected**2 / np.maximum(pca.explained_variance_, floor)).sum(axis=1)
    return Peer(inside + outside / floor, f"eigenvalues floored at {EIGENVALUE_FLOOR:g} of largest")


def _knn(normals: Features, test: Features, *, seed: int, most: int) -> Peer:
    """Mean distance to the nearest normals; many normals are thinned to bound the time."""
    n = len(normals)
    reference, note = normals, f"among {n:,} normals"
    if n > most:
        rows = np.random.default_rng(seed).choice(n, most, replace=False)
        reference, note = normals[rows], f"among {most:,} drawn from {n:,} normals"
    k = min(NEIGHBOURS, len(reference))
    distances, _ = NearestNeighbors(n_neighbors=k, n_jobs=2).fit(reference).kneighbors(test)
    return Peer(distances.mean(axis=1).astype(np.float64), note)
