"""What one name serves after a look at its folder."""

from pathlib import Path

import pytest

from amiss_export.labels import promote
from amiss_serving.errors import DetectorNotFound, LoadFailed
from amiss_serving.versions import NOTHING, Entry, Versions, load_versions, look, with_version

from .conftest import MakeDetector
from .fake_models import FakeModels


@pytest.fixture
def models(tmp_path: Path, make_detector: MakeDetector) -> FakeModels:
    """Versions 1 to 3 of 'table'."""
    fake = FakeModels(tmp_path, make_detector)
    for version in (1, 2, 3):
        fake.publish(version=version)
    return fake


def load(models: FakeModels, before: Versions | None = None) -> Versions:
    """What 'table' serves after a load."""
    before = before or Versions("table", NOTHING, {}, {})
    return load_versions(models.folder, before, models.load)


def test_a_look_tells_every_change_and_only_those(models: FakeModels) -> None:
    """New, removed and replaced versions and labels change what is seen; another look does not."""
    seen = [look(models.folder, "table")]
    assert look(models.folder, "table") == seen[-1]
    for change in (
        lambda: models.publish(version=4),
        lambda: models.remove(version=4),
        lambda: models.touch(version=3),
        lambda: promote(models.folder, "table", 1, "stable"),
        lambda: promote(models.folder, "table", 2, "stable"),
    ):
        change()
        seen.append(look(models.folder, "table"))
        assert seen[-1] != seen[-2]


def test_what_has_not_changed_is_not_loaded_again(models: FakeModels) -> None:
    """A second load keeps the detector; a version added beside it loads alone."""
    first = load(models)
    assert load(models, first).resolve("") is first.resolve("")
    models.publish(version=4)
    load(models, first)
    assert models.calls == [("table", 3), ("table", 4)]


def test_a_version_broken_on_disk_serves_on_as_it_was_loaded(models: FakeModels) -> None:
    """Replaced by something broken: the detector in memory stays, and the list says why."""
    first = load(models)
    models.touch(version=3)
    models.broken.add(("table", 3))
    now = load(models, first)
    assert now.resolve("") is first.resolve("")
    assert now.entries()[-1] == Entry("table", 3, "READY", "table/3: broken")


def test_a_moved_label_is_told_by_the_detector(models: FakeModels) -> None:
    """The same model under its new labels, without being loaded again."""
    before = load(models)
    promote(models.folder, "table", 3, "stable")
    now = load(models, before)
    assert now.resolve("stable").labels == ("stable",)
    assert now.resolve("stable").runtime is before.resolve("").runtime
    assert models.calls == [("table", 3)]


def test_the_version_before_stays_loaded(models: FakeModels) -> None:
    """What stable meant before a promotion is served beside it, ready for a rollback."""
    for version in (1, 2):
        promote(models.folder, "table", version, "stable")
    now = load(models)
    assert sorted(now.loaded) == [1, 2, 3]
    assert now.resolve("previous").version == 1


def test_labels_nobody_can_read_change_nothing(models: FakeModels) -> None:
    """What served before serves on, with the reason in the list."""
    before = load(models)
    (models.folder / "table" / "labels.json").write_text("{")
    now = load(models, before)
    assert now.resolve("") is before.resolve("")
    assert "labels.json" in now.refused[0].reason
    assert str(models.folder) not in now.refused[0].reason


def test_one_version_more_or_a_reason(models: FakeModels) -> None:
    """A version that loads is added; one that does not is named with its reason."""
    before = load(models)
    assert sorted(with_version(models.folder, before, 1, models.load).loaded) == [1, 3]
    models.broken.add(("table", 2))
    with pytest.raises(LoadFailed, match="version 2 was refused: table/2: broken; nothing has ch"):
        with_version(models.folder, before, 2, models.load)


def test_every_version_has_an_entry(models: FakeModels) -> None:
    """Served, refused and not wanted are told apart."""
    models.broken.add(("table", 3))
    assert load(models).entries() == [
        Entry("table", 1, "UNAVAILABLE", "neither the newest nor labelled"),
        Entry("table", 2, "READY"),
        Entry("table", 3, "UNAVAILABLE", "table/3: broken"),
    ]


def test_an_empty_name_serves_no_version(models: FakeModels) -> None:
    """When every version is gone so is every detector."""
    before = load(models)
    for version in (1, 2, 3):
        models.remove(version=version)
    with pytest.raises(DetectorNotFound, match="serves no version"):
        load(models, before).resolve("")
