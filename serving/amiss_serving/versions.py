"""What one name serves: which of its versions on disk are wanted, and what came of loading them."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from amiss_export.bundle import LABELS, MANIFEST, VERSION_PATTERN, list_versions, read_labels
from amiss_export.errors import BadInput, BundleRefused
from amiss_export.labels import STABLE
from amiss_serving.detector import LoadedDetector
from amiss_serving.errors import DetectorNotFound, LoadFailed

Load = Callable[[str, int], LoadedDetector]
State = Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]
Mark = tuple[int, ...]  # what the file system says of a folder or file; another one, other contents
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """A bundle on disk that could not be loaded, and why in one line."""

    name: str
    version: int
    reason: str


@dataclass(frozen=True)
class Entry:
    """One version on disk or in memory. reason: why it is not, or not as on disk, being served."""

    name: str
    version: int
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Seen:
    """What the folder of a name looked like: a few file status calls, no file is read."""

    versions: Mapping[int, Mark]
    labels: Mark


@dataclass(frozen=True)
class Loaded:
    """A detector, the mark of its folder when it was loaded, and how long that took."""

    detector: LoadedDetector
    mark: Mark
    load_s: float


@dataclass(frozen=True)
class Versions:
    """What one name serves at one moment. Never changed, only replaced, in one assignment."""

    name: str
    seen: Seen
    loaded: Mapping[int, Loaded]  # ascending
    labels: Mapping[str, int]
    refused: tuple[Refused, ...] = ()
    is_unloaded: bool = False

    def resolve(self, version: str) -> LoadedDetector:
        """The detector of a number or label; empty: the one labelled 'stable', else the newest.

        Raises DetectorNotFound, saying what there is. A refused 'stable' is not replaced by another
        version: that could be the one somebody rolled back.
        """
        return self._find(version) if version else self._default

    @cached_property
    def _default(self) -> LoadedDetector:
        return self._find("")

    def _find(self, version: str) -> LoadedDetector:
        if self.is_unloaded:
            raise DetectorNotFound(f"detector {self.name!r} was unloaded; load it again")
        wanted = version or (STABLE if STABLE in self.labels else str(max(self.loaded, default=0)))
        by_number = int(wanted) if VERSION_PATTERN.fullmatch(wanted) else 0
        number = self.labels.get(wanted) or by_number
        if number in self.loaded:
            return self.loaded[number].detector
        why = "".join(
            f"; version {r.version} was refused: {r.reason}"
            for r in self.refused
            if number in (0, r.version)
        )
        asked = f"version or label {wanted!r:.80}" if version or self.labels else "version"
        raise DetectorNotFound(
            f"detector {self.name!r} serves no {asked}{why}; being served: versions "
            f"{sorted(self.loaded) or 'none'}, labels {dict(self.labels) or 'none'}"
        )

    def detectors(self) -> list[LoadedDetector]:
        """Those that are loaded, by version."""
        return [loaded.detector for loaded in self.loaded.values()]

    def entries(self) -> list[Entry]:
        """Every version on disk or in memory, READY when it is being served."""
        why = "unloaded" if self.is_unloaded else "neither the newest nor labelled"
        reasons = {refused.version: refused.reason for refused in self.refused}
        found = []
        for version in sorted({*self.seen.versions, *self.loaded, *reasons}):
            if version in self.loaded:
                found.append(Entry(self.name, version, "READY", reasons.get(version, "")))
            else:
                found.append(Entry(self.name, version, "UNAVAILABLE", reasons.get(version, why)))
        return found


NOTHING = Seen({}, ())


def look(models: Path, name: str) -> Seen:
    """What the folder looks like now."""
    folder = models / name
    versions = list_versions(models).get(name, [])
    marks = {v: _mark(folder / str(v)) + _mark(folder / str(v) / MANIFEST) for v in versions}
    return Seen(marks, _mark(folder / LABELS))


def load_versions(models: Path, before: Versions, load: Load) -> Versions:
    """What the name should serve now: the newest version that loads, and every labelled one.

    What has not changed on disk since it was loaded is taken over from `before`. A version that
    fails leaves the one before it serving: an older one, or the same as it was loaded earlier.
    Blocks while it loads. Raises BadInput when the fault is the service's setting, not a bundle's.
    """
    seen = look(models, before.name)
    if not seen.versions:
        return replace(before, seen=seen, loaded={}, labels={}, refused=())
    try:
        labels = read_labels(models, before.name)
    except (BundleRefused, OSError) as error:  # nobody knows which version is wanted
        refused = _refused(models, before.name, max(seen.versions), error)
        return replace(before, seen=seen, refused=(refused,))
    attempt = _Attempt(models, before, seen, load)
    for version in sorted(seen.versions, reverse=True):  # down from the newest until one loads
        if attempt.take(version):
            break
    for version in sorted(set(labels.values())):
        attempt.take(version)
    return Versions(
        name=before.name,
        seen=seen,
        loaded={v: _labelled(one, labels) for v, one in sorted(attempt.loaded.items())},
        labels=labels,
        refused=tuple(attempt.refused.values()),
    )


def with_version(models: Path, before: Versions, version: int, load: Load) -> Versions:
    """`before` and one version more, loaded unless it is there. Raises LoadFailed, saying why."""
    attempt = _Attempt(models, before, look(models, before.name), load)
    if not attempt.take(version):
        raise LoadFailed(
            f"detector {before.name!r}: version {version} was refused: "
            f"{attempt.refused[version].reason}; nothing has changed"
        )
    return replace(before, loaded={**before.loaded, **attempt.loaded})


class _Attempt:
    """Loads versions of one name, each at most once."""

    def __init__(self, models: Path, before: Versions, seen: Seen, load: Load) -> None:
        self._models = models
        self._before = before
        self._seen = seen
        self._load = load
        self.loaded: dict[int, Loaded] = {}
        self.refused: dict[int, Refused] = {}

    def take(self, version: int) -> bool:
        """Whether the version serves after this, newly loaded or as before."""
        if version in self.loaded or version in self.refused:
            return version in self.loaded
        mark = self._seen.versions.get(version)
        earlier = self._before.loaded.get(version)
        if mark is not None and earlier is not None:
            self.loaded[version] = earlier  # stays if what is there now turns out to be broken
            if mark == earlier.mark:
                return True
        started = time.perf_counter()
        try:
            detector = self._load(self._before.name, version)
        except BadInput:  # the device asked for, not the bundle
            raise
        except Exception as error:  # whatever is wrong with one bundle, the others serve
            self.refused[version] = _refused(self._models, self._before.name, version, error)
            return version in self.loaded
        self.loaded[version] = Loaded(detector, mark or (), time.perf_counter() - started)
        return True


def _labelled(loaded: Loaded, labels: Mapping[str, int]) -> Loaded:
    """The same detector under its present labels."""
    detector = loaded.detector
    names = tuple(sorted(label for label, v in labels.items() if v == detector.version))
    if names == detector.labels:
        return loaded
    return replace(loaded, detector=replace(detector, labels=names))


def _refused(models: Path, name: str, version: int, error: Exception) -> Refused:
    reason = reason_of(error, models)
    fields = {"detector": name, "version": version, "reason": reason}
    logger.error("bundle refused", extra={"fields": fields})
    return Refused(name, version, reason)


def reason_of(error: Exception, models: Path) -> str:
    """The error in one line, for callers: without where the folder lies on this machine."""
    return " ".join(str(error).replace(f"{models}/", "").replace(f" in {models}", "").split())


def _mark(path: Path) -> Mark:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
