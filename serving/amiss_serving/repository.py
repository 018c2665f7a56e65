"""Which detectors are being served, and how that changes while they are.

A change loads what is new in a thread while the old answers, then swaps in one assignment on the
event loop: a request resolves one detector and keeps it to its end, so no answer mixes versions.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar
from weakref import WeakSet, WeakValueDictionary

from amiss_export.bundle import NAME_PATTERN, list_versions
from amiss_export.labels import Relabelled
from amiss_serving.detector import LoadedDetector
from amiss_serving.errors import DetectorNotFound, LoadFailed, SwitchedOff
from amiss_serving.promotion import Relabel, promote, roll_back
from amiss_serving.versions import (
    NOTHING,
    Entry,
    Load,
    Refused,
    Versions,
    load_versions,
    look,
)

Mode = Literal["none", "poll", "explicit"]
T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Swap:
    """What has just changed for a name: detectors that now answer, and those that no longer do."""

    name: str
    added: tuple[LoadedDetector, ...]
    retired: tuple[LoadedDetector, ...]


class DetectorRepository:
    """The detectors being served, by name and version.

    For each name the newest version that loads, and every labelled one: a broken new version
    leaves the one before it serving. `load` is how one is loaded; tests pass their own. Changes of
    one name wait for each other. Once begun they are finished, whatever becomes of the caller.

    mode: 'none' serves what was there at start; 'poll' is for a task that calls `refresh`;
    'explicit' takes `load` and `unload`. Promote and rollback need poll or explicit.
    """

    def __init__(self, models: Path, load: Load, *, mode: Mode = "none") -> None:
        self.mode = mode
        self.listeners: list[Callable[[Swap], None]] = []  # called on the event loop
        self._models = models
        self._open = load
        self._versions: dict[str, Versions] = {}
        self._loading: set[tuple[str, int]] = set()
        self._retired: WeakSet[LoadedDetector] = WeakSet()  # until the last request lets go
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._changes: set[asyncio.Task[object]] = set()

    def scan(self) -> None:
        """Load what is on disk. Blocks, and tells no listener: for use before serving."""
        for name in list_versions(self._models):
            self._put(load_versions(self._models, self._at(name), self._load))

    async def refresh(self) -> None:
        """Take over what has changed on disk since the last look; names that were unloaded stay so.

        What goes wrong with one name is logged, and the others follow all the same.
        """
        there = await asyncio.to_thread(list_versions, self._models)
        if self._versions and not there:  # rather a mount that is gone than everything deleted
            logger.error("the models folder is empty or gone; what was loaded serves on")
            return
        for name in sorted({*there, *self._versions}):
            try:
                await self._alone(name, partial(self._refresh, name))
            except Exception:  # a device that is gone, a folder that cannot be read
                logger.exception("refresh failed", extra={"fields": {"detector": name}})

    async def load(self, name: str) -> list[LoadedDetector]:
        """The detectors of the name after loading what is new or was refused or unloaded.

        Raises SwitchedOff, DetectorNotFound, and LoadFailed when a wanted version does not load;
        what can serve then serves.
        """
        self._check("explicit")
        return await self._alone(self._known(name), partial(self._load_name, name))

    async def unload(self, name: str) -> None:
        """Stop serving the name; requests under way finish. Raises SwitchedOff, DetectorNotFound.

        It is listed as unloaded until it is loaded or promoted again.
        """
        self._check("explicit")
        await self._alone(self._known(name), partial(self._unload, name))

    async def promote(self, name: str, version: str, label: str) -> Relabelled:
        """Point a label at a version (number or label), after that version has loaded.

        Raises SwitchedOff, BadInput for a label that cannot be one, DetectorNotFound, and
        LoadFailed when the version does not load: then nothing has changed.
        """
        self._check("poll", "explicit")
        relabel = partial(promote, version=version, label=label)
        return await self._alone(self._known(name), partial(self._relabel, name, relabel))

    async def rollback(self, name: str) -> Relabelled:
        """Point 'stable' at what it meant before. Raises like `promote`; see labels.rollback."""
        self._check("poll", "explicit")
        return await self._alone(self._known(name), partial(self._relabel, name, roll_back))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is being served."""
        return not any(versions.loaded for versions in self._versions.values())

    def detectors(self) -> list[LoadedDetector]:
        """Every detector being served, by name, then version."""
        return [d for _, one in sorted(self._versions.items()) for d in one.detectors()]

    def answering(self) -> list[LoadedDetector]:
        """What answers for each name when no version is asked for; names without are left out."""
        found = []
        for name in sorted(self._versions):
            with suppress(DetectorNotFound):
                found.append(self.resolve(name))
        return found

    @property
    def refused(self) -> list[Refused]:
        """Every bundle that could not be loaded, by name."""
        return [r for _, one in sorted(self._versions.items()) for r in one.refused]

    @property
    def load_duration_s(self) -> dict[LoadedDetector, float]:
        """Seconds it took to load each detector that is being served."""
        every = [one for versions in self._versions.values() for one in versions.loaded.values()]
        return {one.detector: one.load_s for one in every}

    def names(self) -> set[str]:
        """Every name on disk, served or refused."""
        return set(self._versions)

    def resolve(self, name: str, version: str = "") -> LoadedDetector:
        """The detector of a version number or label; empty: the one labelled 'stable', else newest.

        Raises DetectorNotFound, saying what there is.
        """
        versions = self._versions.get(name)
        if versions is None:
            have = ", ".join(sorted(n for n, v in self._versions.items() if v.loaded)) or "none"
            raise DetectorNotFound(f"no detector {name!r:.80}; being served: {have}")
        return versions.resolve(version)

    def index(self) -> list[Entry]:
        """Every version there is, on disk or in memory, by name and version."""
        known = [entry for versions in self._versions.values() for entry in versions.entries()]
        leaving = [Entry(d.name, d.version, "UNLOADING") for d in self._retired]
        coming = [Entry(name, version, "LOADING") for name, version in tuple(self._loading)]
        ready = [entry for entry in known if entry.state == "READY"]
        found = {(e.name, e.version): e for e in (*known, *leaving, *coming, *ready)}  # last wins
        return [entry for _, entry in sorted(found.items())]

    def _check(self, *modes: Mode) -> None:
        if self.mode not in modes:
            raise SwitchedOff(
                f"the service does not do this with --repository-mode {self.mode}; start it with "
                f"--repository-mode {' or '.join(modes)}"
            )

    def _known(self, name: str) -> str:
        """The name itself, when it is served or on disk. Raises DetectorNotFound."""
        is_on_disk = NAME_PATTERN.fullmatch(name) and (self._models / name).is_dir()
        if name not in self._versions and not is_on_disk:
            self.resolve(name)
        return name

    def _at(self, name: str) -> Versions:
        return self._versions.get(name) or Versions(name, NOTHING, {}, {})

    async def _alone(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """What work returns, after the changes of this name that began before."""
        lock = self._locks.setdefault(name, asyncio.Lock())

        async def run() -> T:
            async with lock:
                return await work()

        task = asyncio.create_task(run())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def _refresh(self, name: str) -> None:
        before = self._at(name)
        if before.is_unloaded or await asyncio.to_thread(look, self._models, name) == before.seen:
            return
        await self._reload(before)

    async def _load_name(self, name: str) -> list[LoadedDetector]:
        versions = await self._reload(self._at(name))
        if versions.refused:
            why = "; ".join(
                f"version {r.version} was refused: {r.reason}" for r in versions.refused
            )
            serving = sorted(versions.loaded) or "none"
            raise LoadFailed(f"detector {name!r}: {why}; being served: versions {serving}")
        if not versions.loaded:
            self.resolve(name)
        return versions.detectors()

    async def _unload(self, name: str) -> None:
        seen = await asyncio.to_thread(look, self._models, name)
        self._swap(replace(self._at(name), seen=seen, loaded={}, is_unloaded=True))

    async def _relabel(self, name: str, relabel: Relabel) -> Relabelled:
        relabelled, versions = await asyncio.to_thread(
            relabel, self._models, self._at(name), self._load
        )
        self._swap(versions)
        return relabelled

    async def _reload(self, before: Versions) -> Versions:
        versions = await asyncio.to_thread(load_versions, self._models, before, self._load)
        self._swap(versions)
        return versions

    def _load(self, name: str, version: int) -> LoadedDetector:
        """Runs in a thread; a set takes that."""
        self._loading.add((name, version))
        try:
            return self._open(name, version)
        finally:
            self._loading.discard((name, version))

    def _swap(self, versions: Versions) -> None:
        swap = self._put(versions)
        for listener in self.listeners:
            listener(swap)

    def _put(self, versions: Versions) -> Swap:
        """What changes by this assignment, the one that makes newcomers find other detectors."""
        name = versions.name
        before, now = self._at(name).detectors(), versions.detectors()
        if versions.seen.versions or versions.loaded:
            self._versions[name] = versions
        else:
            self._versions.pop(name, None)
        added = tuple(detector for detector in now if detector not in before)
        swap = Swap(name, added, tuple(detector for detector in before if detector not in now))
        self._retired.update(swap.retired)
        _log(swap)
        return swap


def _log(swap: Swap) -> None:
    """A line for each version that came, went, or serves on under other labels."""
    runtimes = {detector.runtime for detector in swap.added}
    left = [detector for detector in swap.retired if detector.runtime not in runtimes]
    stayed = {detector.runtime for detector in swap.retired}
    for detector in (*swap.added, *left):
        what = "relabelled" if detector.runtime in stayed else "loaded"
        what = "retired" if detector in left else what
        fields = {"detector": swap.name, "version": detector.version, "labels": detector.labels}
        logger.info(f"detector {what}", extra={"fields": fields})
