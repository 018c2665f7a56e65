"""What promotion and rollback leave in labels.json."""

import threading
from pathlib import Path

import pytest

from amiss_export.bundle import read_labels
from amiss_export.errors import BadInput, BundleNotFound, BundleRefused
from amiss_export.labels import promote, rollback


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Versions 1 to 3 of 'table', without labels."""
    for version in (1, 2, 3):
        (tmp_path / "table" / str(version)).mkdir(parents=True)
    return tmp_path


def test_a_promotion_is_undone_in_one_call(models: Path) -> None:
    """After stable 1, 2, a rollback makes it 1 and leaves other labels where they were."""
    promote(models, "table", 1, "stable")
    promote(models, "table", 3, "canary")
    promoted = promote(models, "table", 2, "stable")
    assert (promoted.version, promoted.before) == (2, 1)
    done = rollback(models, "table")
    assert (done.version, done.before) == (1, 2)
    assert read_labels(models, "table") == done.labels == {"stable": 1, "canary": 3}


def test_a_rollback_sent_twice_is_refused_the_second_time(models: Path) -> None:
    """It goes back one step and never forth again: the bad version does not come back."""
    promote(models, "table", 1, "stable")
    promote(models, "table", 2, "stable")
    rollback(models, "table")
    with pytest.raises(BadInput, match="'stable' is table@1 and what it was before is not on rec"):
        rollback(models, "table")
    assert read_labels(models, "table")["stable"] == 1


def test_the_first_promotion_goes_back_to_what_the_bare_name_meant(models: Path) -> None:
    """Without stable the newest version answered; a rollback leads there."""
    promote(models, "table", 1, "stable")
    assert rollback(models, "table").version == 3


def test_a_promotion_repeated_forgets_nothing(models: Path) -> None:
    """Promoting the same version again leaves the version before on record."""
    promote(models, "table", 1, "stable")
    first = promote(models, "table", 2, "stable")
    assert promote(models, "table", 2, "stable").labels == first.labels
    assert rollback(models, "table").version == 1


def test_nothing_before_is_said(models: Path) -> None:
    """Without any promotion there is nothing to roll back to, and nothing is written."""
    with pytest.raises(BadInput, match="'stable' is no version"):
        rollback(models, "table")
    assert not (models / "table" / "labels.json").exists()


@pytest.mark.parametrize("label", ["7", "previous", "", "../x", "a b"])
def test_a_label_that_cannot_be_one_is_refused(models: Path, label: str) -> None:
    """Numbers, what rollback writes itself, and what is no name cannot be labels."""
    with pytest.raises(BadInput, match="a label must match"):
        promote(models, "table", 1, label)


def test_what_is_not_there_cannot_be_promoted(models: Path) -> None:
    """An unknown version or name is an error, and no folder is made for it."""
    with pytest.raises(BundleNotFound, match=r"no version 9; versions: \[1, 2, 3\]"):
        promote(models, "table", 9, "stable")
    for change in (lambda: promote(models, "none", 1, "stable"), lambda: rollback(models, "none")):
        with pytest.raises(BundleNotFound):
            change()
    assert not (models / "none").exists()


def test_unreadable_labels_are_not_overwritten(models: Path) -> None:
    """A labels.json that is no JSON is named and left as it is."""
    (models / "table" / "labels.json").write_text("[")
    with pytest.raises(BundleRefused, match=r"labels\.json"):
        promote(models, "table", 1, "stable")
    assert (models / "table" / "labels.json").read_text() == "["


def test_promotions_at_once_lose_none(models: Path) -> None:
    """Twelve writers at the same time leave all twelve labels, and no file beside them."""
    writers = [
        threading.Thread(target=promote, args=(models, "table", 1 + i % 3, f"label-{i}"))
        for i in range(12)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    labels = read_labels(models, "table")
    assert labels == {f"label-{i}": 1 + i % 3 for i in range(12)}
    assert {p.name for p in (models / "table").iterdir()} == {"1", "2", "3", "labels.json"}
