"""The simple detectors that ours has to beat, fitted on the same normals.

A detector that loses to one of them must say so; a peer that fails says why in its place.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.evaluate import ranking_metrics
from amiss_training.paired import paired_difference
from amiss_training.peers_base import Features, Peer
from amiss_training.peers_global import (
    ecod,
    isolation_forest,
    mahalanobis,
    one_class_svm,
    pca_residual,
    pyod_pca,
)
from amiss_training.peers_local import (
    Neighbourhood,
    find_neighbours,
    knn,
    knn_complexity,
    local_outlier_factor,
)

__all__ = ["Peer", "peer_scores", "peer_table"]

UNTRAINED = "the same network and read-out with its initial weights"


def peer_scores(
    normals: Features,
    test: Features,
    *,
    seed: int,
    max_neighbour_rows: int = 20_000,
    untrained: NDArray[Any] | None = None,
) -> dict[str, Peer]:
    """Every peer's scores of the test rows, by name. Deterministic for one seed.

    normals: standardised features (n, f), or pixels 0..1 (n, c, h, w), of every normal our detector
    saw; test: the same of the m test rows. kNN and LOF look at max_neighbour_rows normals at most,
    drawn by the seed. Images add kNN corrected for complexity. untrained: scores (m,) of our own
    network before it learned anything, listed as a peer where given.
    Raises BadInput when the arrays do not fit together.
    """
    _check(normals, test, untrained)
    flat, flat_test = normals.reshape(len(normals), -1), test.reshape(len(test), -1)

    @cache
    def neighbourhood() -> Neighbourhood:  # the costly search is done once for all who need it
        return find_neighbours(flat, flat_test, seed=seed, most=max_neighbour_rows)

    makers: dict[str, Callable[[], Peer]] = {
        "isolation_forest": partial(isolation_forest, flat, flat_test, seed=seed),
        "pca_residual": partial(pca_residual, flat, flat_test),
        "pyod_pca": partial(pyod_pca, flat, flat_test, seed=seed),
        "mahalanobis": partial(mahalanobis, flat, flat_test),
        "knn": lambda: knn(neighbourhood()),
        "lof": lambda: local_outlier_factor(neighbourhood()),
        "ecod": partial(ecod, flat, flat_test),
        "one_class_svm": partial(one_class_svm, flat, flat_test, seed=seed),
    }
    if normals.ndim == 4:
        makers["knn_complexity"] = lambda: knn_complexity(neighbourhood(), normals, test)
    if untrained is not None:
        makers["untrained"] = partial(Peer, untrained.astype(np.float64), UNTRAINED)
    return {name: _guarded(make) for name, make in makers.items()}


def peer_table(
    scores: Mapping[str, Peer], is_anomaly: NDArray[np.bool_], *, ours: NDArray[Any]
) -> dict[str, dict[str, Any]]:
    """{"auroc", "auprc", "difference", "note"} by peer, None where it failed or a class is absent.

    ours: our scores (m,) of the same rows. difference: {"value", "low", "high", "excludes_zero"},
    our AUROC minus the peer's with its 95 % interval.
    """
    table = {}
    for name, peer in scores.items():
        metrics: dict[str, Any] = {}
        difference = None
        if peer.scores is not None:
            metrics = ranking_metrics(peer.scores, is_anomaly)
            difference = paired_difference(ours, peer.scores, is_anomaly)
        table[name] = {
            "auroc": metrics.get("auroc"),
            "auprc": metrics.get("auprc"),
            "difference": difference.as_json() if difference else None,
            "note": peer.note,
        }
    return table


def _check(normals: Features, test: Features, untrained: NDArray[Any] | None) -> None:
    if normals.ndim not in (2, 4) or normals.shape[1:] != test.shape[1:]:
        raise BadInput(
            "peers need normals (n, f) and test (m, f), or images (n, c, h, w) and (m, c, h, w), "
            f"got {normals.shape} and {test.shape}"
        )
    if len(normals) < 2 or len(test) < 1:
        raise BadInput(
            f"peers need >= 2 normals and >= 1 test row, got {len(normals)} and {len(test)}"
        )
    if untrained is not None and untrained.shape != (len(test),):
        raise BadInput(
            f"the untrained network's scores must be ({len(test)},), one for each test row, "
            f"got {untrained.shape}"
        )


def _guarded(make: Callable[[], Peer]) -> Peer:
    """The peer, or why there is none: a report must not fail because a comparison does."""
    try:
        peer = make()
    except Exception as error:
        return Peer(None, f"failed: {type(error).__name__}: {error}")
    if peer.scores is not None and not np.isfinite(peer.scores).all():
        bad = int((~np.isfinite(peer.scores)).sum())
        return Peer(None, f"failed: {bad} of {len(peer.scores)} scores are not finite")
    return peer
