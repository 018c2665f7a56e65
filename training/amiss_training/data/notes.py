"""What people should be shown about prepared data, one line each."""

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import TableInput
from amiss_export.decode import MISSING, UNSEEN
from amiss_training.data.splits import Roles, repeats_of_train


def on_repeats(repeats: int, kept: int, *, removed: bool) -> list[str]:
    """How many rows repeat an earlier one, and what became of them."""
    if repeats == 0:
        return []
    total = kept + repeats if removed else kept
    share = f"{repeats} of {total} rows ({repeats / total:.1%}) repeat an earlier one"
    if removed:
        return [f"{share} and were removed"]
    return [f"{share}; equal rows stay in one role (deduplicate removes them)"]


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


def on_test(roles: Roles, hashes: NDArray[np.uint64], is_anomaly: NDArray[np.bool_]) -> list[str]:
    """Test rows that equal a training row: no detector can tell them apart."""
    lines = []
    for kind, among in (("anomalies", is_anomaly), ("normals", ~is_anomaly)):
        count = repeats_of_train(roles, hashes, among)
        if count:
            lines.append(f"{count} {kind} in test equal a normal row that is trained on")
    return lines
