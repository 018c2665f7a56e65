"""Who trains, who stops the training, who sets the threshold, who is the test; and the proof of it.

Equal rows form a group and a group plays one role only: a row that was trained on cannot come
back as a held-out one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.errors import TooFewRows

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Roles:
    """Row numbers by role, each sorted, disjoint: normals in the first three, all else in test."""

    train: Indices
    early_stop: Indices
    calibration: Indices
    test: Indices

    def items(self) -> list[tuple[str, Indices]]:
        """(role, row numbers) in order: train, early_stop, calibration, test."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


def split_roles(
    groups: NDArray[np.integer],
    is_anomaly: NDArray[np.bool_],
    *,
    shares: Sequence[float],
    seed: int,
) -> Roles:
    """Roles for n rows: the normals' groups divided at random, every anomaly in test.

    groups, (n,): equal rows share a number. shares: of the normals' groups, for train, early-stop
    and calibration; what is left of them is test, nothing when they add up to 1. Each role gets at
    least one group; raises TooFewRows when there are too few. Deterministic in seed.
    """
    normal = np.flatnonzero(~is_anomaly)
    _, first, group = np.unique(groups[normal], return_index=True, return_inverse=True)
    counts = _counts(len(first), shares)
    order = np.random.default_rng(seed).permutation(len(first))
    role_of_group = np.empty(len(first), dtype=np.int64)
    # Groups count in order of appearance: a row that changes moves no other row.
    role_of_group[np.argsort(first)[order]] = np.repeat(np.arange(4), counts)
    role = np.full(len(groups), 3)
    role[normal] = role_of_group[group]
    return _roles(role)


def split_with_own_test(
    groups: NDArray[np.integer],
    is_anomaly: NDArray[np.bool_],
    own_test: NDArray[np.bool_],
    *,
    shares: Sequence[float],
    seed: int,
) -> Roles:
    """Roles where the data bring their own test, (n,) True: the other normals divide into three.

    A normal that equals one of that test, by group, joins it: it must not be trained on.
    """
    own_test = own_test | (~is_anomaly & np.isin(groups, groups[own_test & ~is_anomaly]))
    divided = np.flatnonzero(~own_test)
    whole = sum(shares)
    roles = split_roles(
        groups[divided],
        is_anomaly[divided],
        shares=[share / whole for share in shares],
        seed=seed,
    )
    test = np.concatenate([divided[roles.test], np.flatnonzero(own_test)])
    return Roles(
        train=divided[roles.train],
        early_stop=divided[roles.early_stop],
        calibration=divided[roles.calibration],
        test=np.sort(test),
    )


def keep_apart(roles: Roles, hashes: NDArray[np.uint64], kind: NDArray[np.bool_]) -> Roles:
    """Roles in which no two equal rows of one kind, by hash and kind (n,), play different ones.

    Rows that differ in the file can be equal to the detector: a column was dropped, two unseen
    categories share a code. Such rows all join the earliest role among them.
    """
    role = np.empty(len(hashes), dtype=np.int64)
    for number, (_, index) in enumerate(roles.items()):
        role[index] = number
    for rows in (np.flatnonzero(kind), np.flatnonzero(~kind)):
        _, group = np.unique(hashes[rows], return_inverse=True)
        earliest = np.full(group.max(initial=-1) + 1, 3)
        np.minimum.at(earliest, group, role[rows])
        role[rows] = earliest[group]
    apart = _roles(role)
    for name, index in apart.items()[:3]:
        if len(index) == 0:
            raise TooFewRows(
                f"no row is left for {name}: too few normal rows differ from each other"
            )
    return apart


def repeats_of_train(roles: Roles, hashes: NDArray[np.uint64], among: NDArray[np.bool_]) -> int:
    """How many test rows among the given (n,) True equal a row that is trained on."""
    chosen = roles.test[among[roles.test]]
    return int(np.isin(hashes[chosen], hashes[roles.train]).sum())


def row_hashes(x: NDArray[Any]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row of x (n, ...), (n,), equal for equal rows on every machine."""
    if x.dtype.kind == "f":
        x = x + x.dtype.type(0)  # -0.0 equals 0.0 and must hash as it does
    rows = np.ascontiguousarray(x.astype(x.dtype.newbyteorder("<"), copy=False))
    data = rows.reshape(-1).view(np.uint8).data
    width = len(data) // max(1, len(rows))
    starts = range(0, len(data), width or 1)
    digests = [hashlib.blake2b(data[i : i + width], digest_size=8).digest() for i in starts]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64, copy=False)


def role_hash(x: NDArray[Any], index: Indices) -> str:
    """sha256, as hex, of the hashes of the rows x[index], in that order."""
    return hashlib.sha256(row_hashes(x[index]).astype("<u8").tobytes()).hexdigest()


def _roles(role: NDArray[np.int64]) -> Roles:
    return Roles(*(np.flatnonzero(role == number) for number in range(4)))


def _counts(groups: int, shares: Sequence[float]) -> list[int]:
    """How many of the groups each of the four roles gets: its share, but one at the least."""
    rest = 1 - sum(shares)
    parts = [*shares, rest] if rest > 1e-9 else list(shares)
    if groups < len(parts):
        raise TooFewRows(
            f"train, early-stop, calibration{' and test' if len(parts) == 4 else ''} need >= "
            f"{len(parts)} distinct normal rows, got {groups}"
            f"{' (all are equal)' if groups == 1 else ''}; add normal rows"
        )
    edges = [0]
    for role, end in enumerate(np.cumsum(parts).tolist(), start=1):
        least, most = edges[-1] + 1, groups - (len(parts) - role)
        edges.append(min(max(round(end * groups), least), most))
    return [*np.diff(edges).tolist(), 0][:4]
