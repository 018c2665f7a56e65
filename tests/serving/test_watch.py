"""The folder is followed while the service runs, and only when that is switched on."""

import asyncio
from pathlib import Path

import pytest

from amiss_serving.repository import DetectorRepository
from amiss_serving.watch import polling

from .conftest import MakeDetector
from .fake_models import FakeModels


@pytest.fixture
def models(tmp_path: Path, make_detector: MakeDetector) -> FakeModels:
    """table@1."""
    fake = FakeModels(tmp_path, make_detector)
    fake.publish()
    return fake


async def until_version(repository: DetectorRepository, version: int) -> None:
    async with asyncio.timeout(10):
        while repository.resolve("table").version != version:
            await asyncio.sleep(0.005)


async def test_a_new_version_answers_without_a_restart(models: FakeModels) -> None:
    """Published while the service runs it answers soon after, and nothing does after the block."""
    repository = models.repository("poll")
    with polling(repository, 0.01):
        models.publish(version=2)
        await until_version(repository, 2)
    models.publish(version=3)
    await asyncio.sleep(0.05)
    assert repository.resolve("table").version == 2


@pytest.mark.parametrize("mode", ["none", "explicit"])
async def test_other_modes_do_not_look(models: FakeModels, mode: str) -> None:
    """What was there at start, or was asked for, stays as it is."""
    repository = models.repository(mode)  # type: ignore[arg-type]
    with polling(repository, 0.01):
        models.publish(version=2)
        await asyncio.sleep(0.05)
    assert repository.resolve("table").version == 1


async def test_a_look_that_fails_is_not_the_last(
    models: FakeModels, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that cannot be listed is logged; once it can the new version is found."""

    class Flaky(DetectorRepository):
        looks = 0

        async def refresh(self) -> None:
            self.looks += 1
            if self.looks == 1:
                raise PermissionError("no access")
            await super().refresh()

    repository = Flaky(models.folder, models.load, mode="poll")
    repository.scan()
    with polling(repository, 0.01):
        models.publish(version=2)
        await until_version(repository, 2)
    assert "could not be read" in caplog.text
