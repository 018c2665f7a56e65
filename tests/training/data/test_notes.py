"""Notes: what people are told, and nothing when there is nothing to tell."""

import numpy as np

from amiss_export.bundle import Column, TableInput
from amiss_training.data import notes
from amiss_training.data.splits import Roles

ROLES = Roles(np.array([0]), np.array([1]), np.array([2]), np.array([3, 4]))
SPEC = TableInput(
    columns=(
        Column(name="a", kind="number", dtype="float64"),
        Column(name="b", kind="category", dtype="str", categories=("x",)),
    )
)


def test_repeats_are_counted_of_all_rows() -> None:
    """The share is of the rows before removal, both ways."""
    (removed,) = notes.on_repeats(30, 70, removed=True)
    (kept,) = notes.on_repeats(30, 100, removed=False)
    assert removed == "30 of 100 rows (30.0%) repeat an earlier one and were removed"
    assert kept.startswith("30 of 100 rows (30.0%) repeat an earlier one; equal rows stay")
    assert notes.on_repeats(0, 100, removed=True) == []


def test_cells_missing_and_unseen_are_counted() -> None:
    """NaN and code 1 are missing; code 0 is unseen and counted per held-out role."""
    x = np.array([[1, 2], [np.nan, 2], [1, 1], [1, 0], [1, 0]], dtype=np.float32)
    missing, unseen = notes.on_cells(x, SPEC, ROLES)
    assert missing.startswith("2 of 10 cells (20.00%) are missing")
    assert unseen.endswith("0 in early_stop, 0 in calibration, 2 in test")
    assert notes.on_cells(np.full((5, 2), 2, dtype=np.float32), SPEC, ROLES) == []


def test_test_rows_that_equal_training_rows_are_told() -> None:
    """Anomalies and normals that repeat a training row are counted apart."""
    hashes = np.array([7, 1, 2, 7, 9], dtype=np.uint64)
    is_anomaly = np.array([False, False, False, True, False])
    assert notes.on_test(ROLES, hashes, is_anomaly) == [
        "1 anomalies in test equal a normal row that is trained on"
    ]
