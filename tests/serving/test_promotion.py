"""What a promotion leaves on disk and in memory when a step of it fails."""

from pathlib import Path

import pytest

from amiss_export.bundle import read_labels
from amiss_export.errors import BadInput
from amiss_serving.detector import LoadedDetector
from amiss_serving.errors import DetectorNotFound, LoadFailed
from amiss_serving.promotion import promote, roll_back
from amiss_serving.versions import NOTHING, Versions, load_versions

from .conftest import MakeDetector
from .fake_models import FakeModels


@pytest.fixture
def models(tmp_path: Path, make_detector: MakeDetector) -> FakeModels:
    """table@1 and table@2."""
    fake = FakeModels(tmp_path, make_detector)
    for version in (1, 2):
        fake.publish(version=version)
    return fake


@pytest.fixture
def before(models: FakeModels) -> Versions:
    """'table' as it serves: version 2."""
    return load_versions(models.folder, Versions("table", NOTHING, {}, {}), models.load)


def test_the_version_loads_before_the_label_is_written(
    models: FakeModels, before: Versions
) -> None:
    """At the moment of the load labels.json still says nothing."""
    seen: list[dict[str, int]] = []

    def load(name: str, version: int) -> LoadedDetector:
        seen.append(read_labels(models.folder, name))
        return models.load(name, version)

    relabelled, now = promote(models.folder, before, load, version="1", label="stable")
    assert seen == [{}]
    assert (relabelled.version, now.resolve("").version) == (1, 1)


def test_a_rollback_to_what_no_longer_loads_changes_nothing(
    models: FakeModels, before: Versions
) -> None:
    """The reason is given, and stable stays where it was."""
    _, now = promote(models.folder, before, models.load, version="1", label="stable")
    models.remove(version=2)
    with pytest.raises(LoadFailed, match="version 2 was refused"):
        roll_back(models.folder, now, models.load)
    assert read_labels(models.folder, "table") == {"stable": 1, "previous": 2}


def test_where_the_folder_lies_is_not_told(models: FakeModels, before: Versions) -> None:
    """Errors for callers hold no path of this machine."""
    (models.folder / "table" / "labels.json").write_text("[")
    with pytest.raises(LoadFailed) as refused:
        promote(models.folder, before, models.load, version="1", label="stable")
    nowhere = Versions("nope", NOTHING, {}, {})
    with pytest.raises(DetectorNotFound) as absent:
        promote(models.folder, nowhere, models.load, version="1", label="stable")
    for error in (refused.value, absent.value):
        assert str(models.folder) not in str(error)


def test_a_version_must_be_named(models: FakeModels, before: Versions) -> None:
    """The bare name would promote whatever is newest at that moment."""
    with pytest.raises(BadInput, match="expected a version number or label"):
        promote(models.folder, before, models.load, version="", label="stable")
