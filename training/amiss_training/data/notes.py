"""What people should be shown about prepared data, one line each."""

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import TableInput
from amiss_export.decode import MISSING, UNSEEN
from amiss_training.data.options import DataOptions
from amiss_training.data.splits import Roles, repeats_of_train

Bools = NDArray[np.bool_]
Hashes = NDArray[np.uint64]


def on_repeats(repeats: int, kept: int, options: DataOptions) -> list[str]:
    """How many rows repeat an earlier one, and what became of them."""
    if repeats == 0:
        return []
    total = kept + repeats if options.deduplicate else kept
    share = f"{repeats} of {total} rows ({repeats / total:.1%}) repeat an earlier one"
    if options.deduplicate:
        return [f"{share} and were removed"]
    if options.keep_repeats_together:
        return [f"{share}; equal rows stay in one role (deduplicate removes them)"]
    return [share]


def on_dropped(spec: TableInput) -> list[str]:
    """Each column that the detector does not look at, with the reason."""
    return [f"column {column.name!r} is dropped: {column.reason}" for column in spec.dropped]


def on_cells(x: NDArray[np.float32], spec: TableInput, roles: Roles) -> list[str]:
    """The share of missing cells, and how many categories each held-out role never saw in train."""
    lines = []
    category = np.array([column.kind == "category" for column in spec.columns])
    missing = int(np.isnan(x).sum()) + int((x[:, category] == MISSING).sum())
    if missing:
        lines.append(
            f"{missing} of {x.size} cells ({missing / x.size:.2%}) are missing and count as such"
        )
    unseen = (x[:, category] == UNSEEN).sum(axis=1)
    by_role = {role: int(unseen[index].sum()) for role, index in roles.items() if role != "train"}
    if any(by_role.values()):
        counts = ", ".join(f"{count} in {role}" for role, count in by_role.items())
        lines.append(f"cells with a category that no training row has: {counts}")
    return lines


def on_protocol(options: DataOptions, roles: Roles, hashes: Hashes, is_anomaly: Bools) -> list[str]:
    """Where the options depart from training on normals and testing on all the rest, in figures."""
    lines = []
    if options.contamination:
        lines.append(
            f"contaminated training: {_anomalies_in(roles.train, is_anomaly)} are anomalies"
        )
    if not options.keep_anomalies_out:
        counts = ", ".join(
            f"{_anomalies_in(index, is_anomaly)} in {role}" for role, index in roles.items()
        )
        lines.append(
            f"paper protocol: anomalies are not kept out: {counts}; the alarm rate holds for such "
            "a mixture, not for normal rows"
        )
    if not options.keep_repeats_together:
        repeats = repeats_of_train(roles, hashes, np.ones_like(is_anomaly))
        lines.append(
            "paper protocol: equal rows are not kept together: "
            f"{repeats / len(roles.test):.1%} of the test rows also occur in training"
        )
    if options.test_prevalence is not None:
        left_out = len(is_anomaly) - sum(len(index) for _, index in roles.items())
        lines.append(
            f"test thinned: {_anomalies_in(roles.test, is_anomaly)} are anomalies, "
            f"{left_out} rows are left out"
        )
    if options.oracle_flag_share is not None:
        lines.append(
            f"paper protocol: precision, recall and F1 also at the top "
            f"{options.oracle_flag_share:.1%} of the test scores: an oracle, no threshold for use"
        )
    return lines


def on_test(roles: Roles, hashes: Hashes, is_anomaly: Bools) -> list[str]:
    """Test rows that equal a training row: no detector can tell them apart."""
    lines = []
    for kind, among in (("anomalies", is_anomaly), ("normals", ~is_anomaly)):
        count = repeats_of_train(roles, hashes, among)
        if count:
            lines.append(f"{count} {kind} in test equal a row that is trained on")
    return lines


def _anomalies_in(index: NDArray[np.int64], is_anomaly: Bools) -> str:
    count = int(is_anomaly[index].sum())
    return f"{count} of {len(index)} rows ({count / max(1, len(index)):.1%})"
