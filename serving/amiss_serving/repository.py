"""Which detectors are being served: what was on disk, what could be loaded, what was refused."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amiss_export.bundle import VERSION_PATTERN, list_versions, read_labels
from amiss_export.errors import BadInput, BundleRefused
from amiss_serving.detector import LoadedDetector
from amiss_serving.errors import DetectorNotFound

STABLE = "stable"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """A bundle on disk that is not served, and why in one line."""

    name: str
    version: int
    reason: str


Load = Callable[[str, int], LoadedDetector]


class DetectorRepository:
    """The detectors being served, by name and version.

    For each name the newest version that loads, and every labelled one: a broken new version
    leaves the one before it serving. `load` is how one is loaded; tests pass their own.
    """

    def __init__(self, models: Path, load: Load) -> None:
        self._models = models
        self._load = load
        self._loaded: dict[str, dict[int, LoadedDetector]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self.refused: list[Refused] = []
        self.load_duration_s: dict[LoadedDetector, float] = {}

    def scan(self) -> None:
        """Load what is on disk. Called once, before serving."""
        for name, versions in list_versions(self._models).items():
            try:
                self._labels[name] = read_labels(self._models, name)
            except (BundleRefused, OSError) as error:  # nobody knows which version is wanted
                self._refuse(name, versions[-1], error)
                continue
            self._load_name(name, versions)

    def detectors(self) -> list[LoadedDetector]:
        """Every detector being served, by name, then version."""
        return [d for _, by_version in sorted(self._loaded.items()) for d in by_version.values()]

    def answering(self) -> list[LoadedDetector]:
        """What answers for each name when no version is asked for; names without are left out."""
        found = []
        for name in sorted(self._loaded):
            with suppress(DetectorNotFound):
                found.append(self.resolve(name))
        return found

    def names(self) -> set[str]:
        """Every name on disk, served or refused."""
        return set(self._loaded) | {refused.name for refused in self.refused}

    def resolve(self, name: str, version: str = "") -> LoadedDetector:
        """The detector of a version number or label; empty: the one labelled 'stable', else newest.

        Raises DetectorNotFound, saying what there is. A refused 'stable' is not replaced by another
        version: that could be the one somebody rolled back.
        """
        loaded = self._loaded.get(name, {})
        labels = self._labels.get(name, {})
        if not loaded and not labels and all(refused.name != name for refused in self.refused):
            have = ", ".join(sorted(self._loaded)) or "none"
            raise DetectorNotFound(f"no detector {name!r:.80}; being served: {have}")
        wanted = version or (STABLE if STABLE in labels else str(max(loaded, default=0)))
        number = labels.get(wanted) or (int(wanted) if VERSION_PATTERN.fullmatch(wanted) else 0)
        if number in loaded:
            return loaded[number]
        why = "".join(
            f"; version {r.version} was refused: {r.reason}"
            for r in self.refused
            if r.name == name and number in (0, r.version)
        )
        asked = f"version or label {wanted!r:.80}" if version or labels else "version"
        raise DetectorNotFound(
            f"detector {name!r} serves no {asked}{why}; being served: versions "
            f"{sorted(loaded) or 'none'}, labels {labels or 'none'}"
        )

    def _load_name(self, name: str, versions: list[int]) -> None:
        for version in reversed(versions):  # down from the newest until one loads
            if self._try(name, version):
                break
        for version in sorted(set(self._labels[name].values())):
            seen = any(r.name == name and r.version == version for r in self.refused)
            if version not in self._loaded.get(name, {}) and not seen:
                self._try(name, version)
        if name in self._loaded:
            self._loaded[name] = dict(sorted(self._loaded[name].items()))

    def _try(self, name: str, version: int) -> bool:
        started = time.perf_counter()
        try:
            detector = self._load(name, version)
        except BadInput:  # the device asked for, not the bundle
            raise
        except Exception as error:  # whatever is wrong with one bundle, the others serve
            self._refuse(name, version, error)
            return False
        self.load_duration_s[detector] = time.perf_counter() - started
        self._loaded.setdefault(name, {})[version] = detector
        fields = {"detector": name, "version": version, "labels": detector.labels}
        logger.info("detector loaded", extra={"fields": fields})
        return True

    def _refuse(self, name: str, version: int, error: Exception) -> None:
        # Callers see the reason: keep where the folder lies on this machine out of it.
        reason = " ".join(str(error).replace(f"{self._models}/", "").split())
        self.refused.append(Refused(name, version, reason))
        fields = {"detector": name, "version": version, "reason": reason}
        logger.error("bundle refused", extra={"fields": fields})
