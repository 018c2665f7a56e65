"""Roles as the options ask for them: anomalies mixed in, the test thinned, or neither."""

import numpy as np
from numpy.typing import NDArray

from amiss_export.errors import TooFewRows
from amiss_training.data.options import DataOptions
from amiss_training.data.splits import (
    Indices,
    Roles,
    keep_apart,
    split_roles,
    split_with_own_test,
)

Bools = NDArray[np.bool_]
_MIXING, _THINNING = 1, 2  # beside the seed: each draw is independent of the division's


def divide(
    hashes: NDArray[np.uint64],
    is_anomaly: Bools,
    options: DataOptions,
    *,
    seed: int,
    own_test: Bools | None = None,
) -> Roles:
    """Roles for n rows, equal ones by hash (n,) in one role, anomalies where the options want them.

    own_test: (n,) True where the data fix the test. Raises TooFewRows. Deterministic in seed.
    """
    groups = hashes if options.keep_repeats_together else np.arange(len(hashes), dtype=np.uint64)
    kept_out = is_anomaly if options.keep_anomalies_out else np.zeros_like(is_anomaly)
    if own_test is None:
        roles = split_roles(groups, kept_out, shares=options.shares, seed=seed)
    else:
        roles = split_with_own_test(groups, kept_out, own_test, shares=options.shares, seed=seed)
    if options.contamination == 0:
        return roles
    return contaminate(roles, groups, is_anomaly, share=options.contamination, seed=seed)


def reunite(
    roles: Roles, hashes: NDArray[np.uint64], is_anomaly: Bools, options: DataOptions
) -> Roles:
    """The same roles, but for rows that have become equal since: they join, as `keep_apart` says.

    A normal row and an anomaly stay where they are although equal: nothing could tell them apart.
    """
    if not options.keep_repeats_together:
        return roles
    kind = is_anomaly if options.keep_anomalies_out else np.zeros_like(is_anomaly)
    return keep_apart(roles, hashes, kind)


def contaminate(
    roles: Roles, groups: NDArray[np.integer], is_anomaly: Bools, *, share: float, seed: int
) -> Roles:
    """Roles in which anomalies make up the given share of the training rows, taken out of test.

    Equal anomalies, by group (n,), move together, so that none that was trained on comes back in
    test; a group too large for what is missing is passed over. Raises TooFewRows when test would
    keep no anomaly. Early-stop and calibration rows stay as they are.
    """
    anomalies = roles.test[is_anomaly[roles.test]]
    wanted = round(len(roles.train) * share / (1 - share))
    if wanted >= len(anomalies):
        raise TooFewRows(
            f"contamination {share:g} of {len(roles.train)} training rows needs > {wanted} "
            f"anomalies, so that some are left to test on, got {len(anomalies)}"
        )
    _, group, size = np.unique(groups[anomalies], return_inverse=True, return_counts=True)
    is_moved = np.zeros(len(size), dtype=bool)
    for number in np.random.default_rng([seed, _MIXING]).permutation(len(size)):
        if size[number] <= wanted:
            is_moved[number] = True
            wanted -= size[number]
    moved = anomalies[is_moved[group]]
    return Roles(
        train=np.sort(np.concatenate([roles.train, moved])),
        early_stop=roles.early_stop,
        calibration=roles.calibration,
        test=np.setdiff1d(roles.test, moved),
    )


def thin_test(roles: Roles, is_anomaly: Bools, prevalence: float | None, *, seed: int) -> Roles:
    """Roles whose test holds that share of anomalies: what is too many is left out at random.

    None leaves the test as it is. Raises TooFewRows when it lacks anomalies or normals.
    """
    if prevalence is None:
        return roles
    anomalies = roles.test[is_anomaly[roles.test]]
    normals = roles.test[~is_anomaly[roles.test]]
    if not len(anomalies) or not len(normals):
        raise TooFewRows(
            f"test_prevalence {prevalence:g} needs anomalies and normals in test, "
            f"got {len(anomalies)} and {len(normals)}"
        )
    odds = prevalence / (1 - prevalence)
    rng = np.random.default_rng([seed, _THINNING])
    wanted = round(len(normals) * odds)
    if wanted < len(anomalies):
        anomalies = _some(anomalies, wanted, rng)
    elif wanted > len(anomalies):
        normals = _some(normals, round(len(anomalies) / odds), rng)
    test = np.sort(np.concatenate([anomalies, normals]))
    return Roles(roles.train, roles.early_stop, roles.calibration, test)


def _some(rows: Indices, count: int, rng: np.random.Generator) -> Indices:
    return rng.choice(rows, max(1, count), replace=False)
