"""A models folder whose bundles are empty folders, and a loader that needs no more of them."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

from amiss_export.errors import BundleRefused
from amiss_serving.detector import LoadedDetector
from amiss_serving.repository import DetectorRepository, Mode

from .conftest import FakeRuntime, MakeDetector


class FakeModels:
    """broken: versions whose load fails. calls: every load, in order. free: loads wait for it."""

    def __init__(self, folder: Path, make_detector: MakeDetector) -> None:
        self.folder = folder
        self.broken: set[tuple[str, int]] = set()
        self.calls: list[tuple[str, int]] = []
        self.free = threading.Event()
        self.free.set()
        self._template = make_detector(FakeRuntime())

    def publish(self, name: str = "table", version: int = 1) -> None:
        """Write a version in one piece, as publish does."""
        parent = self.folder / name
        parent.mkdir(parents=True, exist_ok=True)
        (parent / ".writing").mkdir()
        (parent / ".writing" / "manifest.json").write_text("{}")
        (parent / ".writing").rename(parent / str(version))

    def remove(self, name: str = "table", version: int = 1) -> None:
        """Take a version away."""
        shutil.rmtree(self.folder / name / str(version), ignore_errors=True)

    def touch(self, name: str = "table", version: int = 1) -> None:
        """Replace a version's manifest: it is another bundle now."""
        manifest = self.folder / name / str(version) / "manifest.json"
        manifest.unlink()
        manifest.write_text("{ }")

    def load(self, name: str, version: int) -> LoadedDetector:
        """A detector of its own for each call."""
        self.calls.append((name, version))
        assert self.free.wait(timeout=10)
        if (name, version) in self.broken or not (self.folder / name / str(version)).is_dir():
            raise BundleRefused(f"{self.folder}/{name}/{version}: broken")
        bundle = self._template.bundle
        manifest = bundle.manifest.model_copy(update={"name": name})
        bundle = replace(bundle, version=version, manifest=manifest)
        return replace(self._template, bundle=bundle, runtime=FakeRuntime())

    def repository(self, mode: Mode = "explicit") -> DetectorRepository:
        """A repository of what is there now, scanned."""
        repository = DetectorRepository(self.folder, self.load, mode=mode)
        repository.scan()
        return repository
