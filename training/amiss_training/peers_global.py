"""Peers that describe all normals at once: trees, subspaces, tails and a boundary.

Each takes normals (n, f) and test rows (m, f), and returns the Peer with its scores (m,).
"""

import numpy as np
from numpy.typing import NDArray
from pyod.models import pca as pyod
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from amiss_training.peers_base import Features, Peer, draw

EIGENVALUE_FLOOR = 1e-4  # of the largest
MAX_SVM_ROWS = 5_000  # training time grows with the square
KERNEL_ROWS = 4_096


def isolation_forest(normals: Features, test: Features, *, seed: int) -> Peer:
    """Minus the mean isolation depth (Liu, Ting & Zhou 2008)."""
    forest = IsolationForest(n_estimators=100, random_state=seed).fit(normals)
    return Peer(-forest.score_samples(test), "100 trees of 256 rows")


def pca_residual(normals: Features, test: Features) -> Peer:
    """Squared distance from the subspace that holds 95 % of the normals' variance."""
    pca = PCA(n_components=0.95).fit(normals.astype(np.float64))
    wide = test.astype(np.float64)
    residual = wide - pca.inverse_transform(pca.transform(wide))
    return Peer((residual**2).sum(axis=1), f"{pca.n_components_} of {test.shape[1]} components")


def pyod_pca(normals: Features, test: Features, *, seed: int) -> Peer:
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


def mahalanobis(normals: Features, test: Features) -> Peer:
    """Squared Mahalanobis distance; directions of hardly any variance count with a floor."""
    pca = PCA().fit(normals.astype(np.float64))
    floor = EIGENVALUE_FLOOR * pca.explained_variance_.max()
    centred = test.astype(np.float64) - pca.mean_
    projected = centred @ pca.components_.T
    outside = np.maximum((centred**2).sum(axis=1) - (projected**2).sum(axis=1), 0)
    inside = (projected**2 / np.maximum(pca.explained_variance_, floor)).sum(axis=1)
    return Peer(inside + outside / floor, f"eigenvalues floored at {EIGENVALUE_FLOOR:g} of largest")


def ecod(normals: Features, test: Features) -> Peer:
    """Sum over columns of -log of the tail beyond the value (Li et al. 2022, algorithm 1).

    The largest of three sums: left tails, right tails, and the tail on each column's long side.
    Tails are counted among the normals and the row itself. PyOD's ECOD ranks training and test
    rows together, so that its scores depend on the batch; ours do not.
    """
    n = len(normals)
    sums = np.zeros((3, len(test)))
    for known, values in zip(np.sort(normals.T, axis=1), test.T, strict=True):
        if np.isnan(known).any() or np.isnan(values).any():
            return Peer(None, "failed: a missing value has no rank")
        below = np.searchsorted(known, values, side="right")
        above = n - np.searchsorted(known, values, side="left")
        left, right = (-np.log((count + 1) / (n + 1)) for count in (below, above))
        sums += np.stack([left, right, left if _is_skewed_left(known) else right])
    return Peer(sums.max(axis=0), "tails counted among the normals only")


def one_class_svm(normals: Features, test: Features, *, seed: int) -> Peer:
    """Minus the distance inside the boundary that leaves out 10 % (Schölkopf et al. 2001)."""
    rows, among = draw(len(normals), seed=seed, most=MAX_SVM_ROWS)
    svm = OneClassSVM(nu=0.1, kernel="rbf", gamma="scale").fit(normals[rows].astype(np.float64))
    weights, gamma = svm.dual_coef_[0], svm._gamma
    parts = [  # by matrix products: libsvm's own loop takes ten times as long
        rbf_kernel(test[i : i + KERNEL_ROWS].astype(np.float64), svm.support_vectors_, gamma=gamma)
        @ weights
        for i in range(0, len(test), KERNEL_ROWS)
    ]
    return Peer(-np.concatenate(parts), f"nu 0.1, rbf kernel, {among}")


def _is_skewed_left(column: NDArray[np.float32]) -> bool:
    """The sign of the skewness; a constant column has none."""
    centred = column - column.mean(dtype=np.float64)
    return bool((centred**3).mean() < 0)
