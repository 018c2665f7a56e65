"""Peers that ask how near the nearest normals are: kNN, LOF, kNN corrected for complexity.

One search for the nearest normals serves all of them.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from amiss_training.peers_base import Features, Indices, Peer, Scores, draw

NEIGHBOURS = 5
LOF_NEIGHBOURS = 20
COVARIATE_LIMIT = 3.0  # standard deviations


@dataclass(frozen=True)
class Neighbourhood:
    """The k nearest of the drawn normals to each drawn normal (itself apart) and each test row.

    rows (r,) are the drawn normals' numbers. own, own_rows: distances and positions (r, k) among
    the drawn; test, test_rows: (m, k). among says how many were drawn.
    """

    rows: Indices
    own: Scores
    own_rows: Indices
    test: Scores
    test_rows: Indices
    among: str


def find_neighbours(normals: Features, test: Features, *, seed: int, most: int) -> Neighbourhood:
    """The nearest of at most `most` normals (n, f), to themselves and to the test rows (m, f)."""
    rows, among = draw(len(normals), seed=seed, most=most)
    k = min(LOF_NEIGHBOURS, len(rows) - 1)
    search = NearestNeighbors(n_neighbors=k, n_jobs=2).fit(normals[rows])
    own, own_rows = search.kneighbors()  # without an argument nobody is his own neighbour
    of_test, test_rows = search.kneighbors(test)
    return Neighbourhood(
        rows=rows,
        own=own.astype(np.float64),
        own_rows=own_rows,
        test=of_test.astype(np.float64),
        test_rows=test_rows,
        among=among,
    )


def knn(found: Neighbourhood) -> Peer:
    """Mean distance to the 5 nearest normals."""
    return Peer(_mean_distance(found.test), found.among)


def local_outlier_factor(found: Neighbourhood) -> Peer:
    """Density of the 20 nearest normals over the row's own (Breunig et al. 2000, definition 7)."""
    reach = found.own[:, -1]
    density = _reachability_density(found.own, reach[found.own_rows])
    test_density = _reachability_density(found.test, reach[found.test_rows])
    scores = density[found.test_rows].mean(axis=1) / test_density
    return Peer(scores, f"{found.test.shape[1]} neighbours {found.among}")


def knn_complexity(found: Neighbourhood, normals: Features, test: Features) -> Peer:
    """kNN's log distance beyond what an image of this total variation usually has, in sd.

    normals, test: images (n, c, h, w). Simple images lie near everything, busy ones far from
    everything; a line fitted on the normals' distances to one another takes that out.
    """
    own_variation = _log_total_variation(normals[found.rows])
    middle, spread = own_variation.mean(), own_variation.std() or 1.0

    def covariate(log_variation: Scores) -> Scores:
        standard = (log_variation - middle) / spread
        return np.asarray(np.clip(standard, -COVARIATE_LIMIT, COVARIATE_LIMIT))

    usual = np.log(_mean_distance(found.own) + 1e-12)
    own = covariate(own_variation)
    slope = np.cov(own, usual, bias=True)[0, 1] / (own.var() or 1.0)
    level = usual.mean() - slope * own.mean()
    spread_left = (usual - slope * own).std() or 1.0
    expected = slope * covariate(_log_total_variation(test)) + level
    scores = (np.log(_mean_distance(found.test) + 1e-12) - expected) / spread_left
    return Peer(scores, f"log distance less its line over log total variation, {found.among}")


def _mean_distance(distances: Scores) -> Scores:
    return np.asarray(distances[:, :NEIGHBOURS].mean(axis=1))


def _reachability_density(distances: Scores, reach: Scores) -> Scores:
    """1 / mean reachability distance to the neighbours (definition 6); finite for duplicates."""
    return np.asarray(1.0 / (np.maximum(distances, reach).mean(axis=1) + 1e-10))


def _log_total_variation(images: Features) -> Scores:
    """Log of the mean absolute step between neighbouring pixels (n,)."""
    down = np.abs(np.diff(images, axis=2)).mean(axis=(1, 2, 3), dtype=np.float64)
    right = np.abs(np.diff(images, axis=3)).mean(axis=(1, 2, 3), dtype=np.float64)
    return np.asarray(np.log(down + right + 1e-6))
