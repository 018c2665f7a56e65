"""Data ready for a detector, and the steps that tables and images take alike on the way there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.errors import TooFewRows
from amiss_training.data.labels import Classes
from amiss_training.data.splits import Indices, Roles


@dataclass(frozen=True)
class Prepared:
    """Data ready for a detector: rows, what they are, and who plays which role.

    input: what the graph takes. x: float32 (n, d) with category codes, or uint8 (n, c, h, w).
    label: (n,) text, "normal" without labels; classes: which label is normal. is_anomaly: (n,).
    names: image paths below the folder, or 0-based row numbers in the file. data_hash: sha256 of
    the source; split_hash, split_rows: by role. notes: lines to show people. masks: (n, h, w),
    True where a pixel is defective; None where the data bring no such truth.
    """

    input: ImageInput | TableInput
    x: NDArray[Any]
    label: NDArray[np.str_]
    classes: Classes
    is_anomaly: NDArray[np.bool_]
    roles: Roles
    names: list[str]
    data_hash: str
    split_hash: dict[str, str]
    split_rows: dict[str, int]
    duplicate_rows_removed: int
    notes: list[str]
    masks: NDArray[np.bool_] | None = None


def draw(count: int, most: int | None, *, seed: int) -> Indices:
    """All row numbers, or `most` of them at random, in order."""
    if most is None or most >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def without_repeats(
    hashes: NDArray[np.uint64], label: NDArray[np.str_], *, remove: bool
) -> tuple[Indices, int]:
    """The rows to keep, in order, and how many rows repeat an earlier one with its label."""
    _, code = np.unique(label, return_inverse=True)
    pairs = np.stack([hashes, code.astype(np.uint64)], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    repeats = len(hashes) - len(first)
    return (np.sort(first) if remove else np.arange(len(hashes))), repeats


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Puts the name of the data before a complaint that there are too few rows of them."""
    try:
        yield
    except TooFewRows as error:
        raise TooFewRows(f"{name}: {error}") from error
