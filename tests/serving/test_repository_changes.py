"""How what is being served changes: load, unload, refresh, promote and rollback, also at once."""

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from amiss_export.bundle import read_labels
from amiss_export.errors import AmissError, BadInput
from amiss_serving.detector import LoadedDetector
from amiss_serving.errors import DetectorNotFound, LoadFailed, SwitchedOff
from amiss_serving.repository import DetectorRepository, Entry, Mode, Swap

from .conftest import MakeDetector
from .fake_models import FakeModels


@pytest.fixture
def models(tmp_path: Path, make_detector: MakeDetector) -> FakeModels:
    """table@1."""
    fake = FakeModels(tmp_path, make_detector)
    fake.publish()
    return fake


def served(repository: DetectorRepository) -> list[tuple[str, int]]:
    return [(d.name, d.version) for d in repository.detectors()]


async def test_the_old_version_answers_until_the_new_one_is_loaded(models: FakeModels) -> None:
    """While version 2 loads, 1 answers and 2 is LOADING; then 2 answers and 1 is retired once."""
    repository = models.repository()
    swaps: list[Swap] = []
    repository.listeners.append(swaps.append)
    old = repository.resolve("table")
    models.publish(version=2)
    models.free.clear()
    loading = asyncio.create_task(repository.load("table"))
    while ("table", 2) not in models.calls:
        await asyncio.sleep(0.001)
    assert repository.resolve("table") is old
    assert Entry("table", 2, "LOADING") in repository.index()
    models.free.set()
    (new,) = await loading
    assert repository.resolve("table") is new
    assert [(swap.added, swap.retired) for swap in swaps] == [((new,), (old,))]


async def test_a_broken_new_version_leaves_the_old_one_serving(models: FakeModels) -> None:
    """The load fails with the reason, version 1 answers on, and the index has both."""
    repository = models.repository()
    old = repository.resolve("table")
    models.publish(version=2)
    models.broken.add(("table", 2))
    with pytest.raises(LoadFailed, match=r"2 was refused: .*broken; being served: versions \[1\]"):
        await repository.load("table")
    assert repository.resolve("table") is old
    assert repository.index() == [
        Entry("table", 1, "READY"),
        Entry("table", 2, "UNAVAILABLE", "table/2: broken"),
    ]
    models.broken.clear()
    await repository.load("table")
    assert repository.resolve("table").version == 2


async def test_an_unloaded_name_says_so_until_it_is_loaded_again(models: FakeModels) -> None:
    """It answers nobody, is listed as unloaded, survives a refresh, and comes back by a load."""
    models.publish("other")
    repository = models.repository()
    old = repository.resolve("table")
    await repository.unload("table")
    models.publish(version=2)
    await repository.refresh()
    with pytest.raises(DetectorNotFound, match="'table' was unloaded; load it again"):
        repository.resolve("table")
    assert served(repository) == [("other", 1)]
    assert Entry("table", 1, "UNLOADING") in repository.index()  # `old` is still in our hands
    del old
    gc.collect()
    assert Entry("table", 1, "UNAVAILABLE", "unloaded") in repository.index()
    await repository.load("table")
    assert repository.resolve("table").version == 2


async def test_loads_of_one_name_wait_for_each_other(models: FakeModels) -> None:
    """Two at once load the version once; another name does not wait."""
    repository = models.repository()
    models.publish(version=2)
    models.publish("other")
    models.free.clear()
    twice = [asyncio.create_task(repository.load("table")) for _ in range(2)]
    other = asyncio.create_task(repository.load("other"))
    while len(models.calls) < 3:
        await asyncio.sleep(0.001)
    models.free.set()
    first, second = await asyncio.gather(*twice)
    assert first == second
    await other
    assert sorted(models.calls) == [("other", 1), ("table", 1), ("table", 2)]


async def test_a_change_is_finished_though_its_caller_is_gone(models: FakeModels) -> None:
    """A cancelled promotion is still both on disk and in memory, not on one of them."""
    repository = models.repository()
    models.publish(version=2)
    models.free.clear()
    promoting = asyncio.create_task(repository.promote("table", "2", "stable"))
    while ("table", 2) not in models.calls:
        await asyncio.sleep(0.001)
    promoting.cancel()
    models.free.set()
    while repository.resolve("table").version != 2:
        await asyncio.sleep(0.001)
    assert repository.resolve("table", "stable").version == 2
    assert read_labels(models.folder, "table") == {"stable": 2, "previous": 1}


async def test_promotion_and_rollback_in_one_call_each(models: FakeModels) -> None:
    """Promoted, 2 answers; rolled back, 1 does, without being loaded again."""
    models.publish(version=2)
    (models.folder / "table" / "labels.json").write_text('{"stable": 1, "canary": 2}')
    repository = models.repository("poll")
    assert (await repository.promote("table", "canary", "stable")).before == 1
    assert repository.resolve("table").version == 2
    assert repository.resolve("table").labels == ("canary", "stable")
    done = await repository.rollback("table")
    assert (done.version, done.before, done.labels) == (1, 2, {"stable": 1, "canary": 2})
    assert repository.resolve("table").version == 1
    assert sorted(models.calls) == [("table", 1), ("table", 2)]
    with pytest.raises(BadInput, match="not on record"):
        await repository.rollback("table")


async def test_the_first_promotion_is_undone_too(models: FakeModels) -> None:
    """Version 1 answered, unlabelled; 2, which nobody had loaded, is promoted and rolled back."""
    repository = models.repository()
    models.publish(version=2)
    await repository.promote("table", "2", "stable")
    assert (await repository.rollback("table")).version == 1
    assert repository.resolve("table").version == 1


async def test_a_version_that_does_not_load_is_not_promoted(models: FakeModels) -> None:
    """Labels on disk and the detector that answers are what they were."""
    models.publish(version=2)
    models.broken.add(("table", 2))
    repository = models.repository()
    old = repository.resolve("table")
    with pytest.raises(LoadFailed, match="version 2 was refused: table/2: broken"):
        await repository.promote("table", "2", "stable")
    assert repository.resolve("table") is old
    assert read_labels(models.folder, "table") == {}


async def test_labels_that_cannot_be_written_promote_nothing(models: FakeModels) -> None:
    """A folder in the place of the new file: the caller hears what the service needs."""
    (models.folder / "table" / ".labels.json").mkdir()
    repository = models.repository()
    with pytest.raises(AmissError, match="needs to write in the models folder"):
        await repository.promote("table", "1", "stable")
    assert read_labels(models.folder, "table") == {}


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [
        ("none", set()),
        ("poll", {"promote", "rollback"}),
        ("explicit", {"load", "unload", "promote", "rollback"}),
    ],
)
async def test_what_is_not_switched_on_is_refused(
    models: FakeModels, mode: Mode, allowed: set[str]
) -> None:
    """Each mode allows what its help says; the rest names the option that allows it."""
    (models.folder / "table" / "labels.json").write_text('{"stable": 1, "previous": 1}')
    repository = models.repository(mode)
    changes = {
        "load": lambda: repository.load("table"),
        "promote": lambda: repository.promote("table", "1", "canary"),
        "rollback": lambda: repository.rollback("table"),
        "unload": lambda: repository.unload("table"),
    }
    for name, change in changes.items():
        if name in allowed:
            await change()
        else:
            with pytest.raises(SwitchedOff, match="start it with --repository-mode"):
                await change()


@pytest.mark.parametrize("name", ["none", "../table", ""])
async def test_a_name_that_is_not_there_is_not_found(models: FakeModels, name: str) -> None:
    """Neither loaded, unloaded nor promoted, and no path leads out of the folder."""
    repository = models.repository()
    for change in (
        repository.load(name),
        repository.unload(name),
        repository.promote(name, "1", "stable"),
        repository.rollback(name),
    ):
        with pytest.raises(DetectorNotFound, match="being served: table"):
            await change


async def test_a_refresh_follows_the_folder(models: FakeModels) -> None:
    """New names and versions, moved labels and removed folders are taken over, the rest kept."""
    repository = models.repository("poll")
    models.publish(version=2)
    models.publish("other")
    await repository.refresh()
    assert served(repository) == [("other", 1), ("table", 2)]
    other = repository.resolve("other")
    (models.folder / "table" / "labels.json").write_text(json.dumps({"stable": 1}))
    await repository.refresh()
    assert repository.resolve("table").version == 1
    models.remove(version=1)
    models.remove(version=2)
    await repository.refresh()
    assert served(repository) == [("other", 1)]
    assert repository.resolve("other") is other


async def test_a_refresh_without_changes_loads_nothing(models: FakeModels) -> None:
    """Refused versions, too, are left alone until their folder changes."""
    models.publish(version=2)
    models.broken.add(("table", 2))
    repository = models.repository("poll")
    calls = list(models.calls)
    await repository.refresh()
    assert models.calls == calls
    models.broken.clear()
    models.touch(version=2)
    await repository.refresh()
    assert repository.resolve("table").version == 2


async def test_a_models_folder_that_is_gone_retires_nothing(models: FakeModels) -> None:
    """A mount that fails for a moment does not take the service down."""
    repository = models.repository("poll")
    models.folder.rename(models.folder.with_name("elsewhere"))
    await repository.refresh()
    assert served(repository) == [("table", 1)]
    models.folder.mkdir()
    await repository.refresh()
    assert served(repository) == [("table", 1)]


async def test_one_name_that_fails_does_not_hold_up_the_others(
    models: FakeModels, caplog: pytest.LogCaptureFixture
) -> None:
    """A device that is gone while one name loads is logged; the next name is refreshed."""
    models.publish("zebra")

    def load(name: str, version: int) -> LoadedDetector:
        if name == "table":
            raise BadInput("device 'cuda:0' asked for, but there are 0 CUDA devices")
        return models.load(name, version)

    repository = DetectorRepository(models.folder, load, mode="poll")
    await repository.refresh()
    assert served(repository) == [("zebra", 1)]
    assert "refresh failed" in caplog.text


async def test_listeners_hear_of_every_swap(models: FakeModels) -> None:
    """What is added and retired over all swaps adds up to what is being served."""
    repository = models.repository()
    standing: set[Any] = set(repository.detectors())

    def heard(swap: Swap) -> None:
        nonlocal standing
        assert standing >= set(swap.retired)
        standing = (standing - set(swap.retired)) | set(swap.added)

    repository.listeners.append(heard)
    for version in (2, 3):
        models.publish(version=version)
        await repository.load("table")
        await repository.promote("table", str(version), "stable")
    await repository.rollback("table")
    await repository.unload("table")
    await repository.load("table")
    assert standing == set(repository.detectors())
