"""Notes: what people are told, and nothing when there is nothing to tell."""

from typing import Any

import numpy as np

from amiss_export.bundle import Column, TableInput
from amiss_training.data import DataOptions, notes
from amiss_training.data.splits import Roles

ROLES = Roles(np.array([0]), np.array([1]), np.array([2]), np.array([3, 4]))
SPEC = TableInput(
    columns=(
        Column(name="a", kind="number", dtype="float64"),
        Column(name="b", kind="category", dtype="str", categories=("x",)),
    )
)


def test_repeats_are_counted_of_all_rows() -> None:
    """The share is of the rows before removal; what became of them depends on the options."""
    (removed,) = notes.on_repeats(30, 70, DataOptions(deduplicate=True))
    (kept,) = notes.on_repeats(30, 100, DataOptions())
    (parted,) = notes.on_repeats(30, 100, DataOptions(keep_repeats_together=False))
    assert removed == "30 of 100 rows (30.0%) repeat an earlier one and were removed"
    assert kept.startswith("30 of 100 rows (30.0%) repeat an earlier one; equal rows stay")
    assert parted == "30 of 100 rows (30.0%) repeat an earlier one"
    assert notes.on_repeats(0, 100, DataOptions()) == []


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
        "1 anomalies in test equal a row that is trained on"
    ]


def test_protocol_notes_count_what_they_name() -> None:
    """Each departure from normals-only training is one line with its figures; none by default."""
    hashes = np.array([7, 1, 2, 7, 9], dtype=np.uint64)
    is_anomaly = np.array([True, False, False, True, False])

    def told(**options: Any) -> str:
        return " | ".join(notes.on_protocol(DataOptions(**options), ROLES, hashes, is_anomaly))

    assert told() == ""
    assert told(contamination=0.5) == "contaminated training: 1 of 1 rows (100.0%) are anomalies"
    assert "1 of 1 rows (100.0%) in train, 0 of 1 rows (0.0%) in early_stop" in told(
        keep_anomalies_out=False
    )
    assert "50.0% of the test rows also occur in training" in told(keep_repeats_together=False)
    assert told(test_prevalence=0.5) == (
        "test thinned: 1 of 2 rows (50.0%) are anomalies, 0 rows are left out"
    )
    assert "top 20.0% of the test scores: an oracle" in told(oracle_flag_share=0.2)
