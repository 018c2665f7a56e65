"""What every peer is made of: its scores, and the normals it may look at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
Scores = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Peer:
    """scores: (m,) higher = more anomalous, or None when the peer failed and `note` says why."""

    scores: Scores | None
    note: str


def draw(n: int, *, seed: int, most: int) -> tuple[Indices, str]:
    """Numbers of at most `most` of n normals, drawn by the seed, and words that say so."""
    if n <= most:
        return np.arange(n), f"among {n:,} normals"
    rows = np.random.default_rng(seed).choice(n, most, replace=False)
    return rows, f"among {most:,} drawn from {n:,} normals"
