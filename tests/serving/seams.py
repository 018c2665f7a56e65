"""A service whose model, loading and clockwork are under a test's control."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from amiss_serving.detector import LoadedDetector, load_detector
from amiss_serving.engine import Engine
from amiss_serving.inputs import Limits
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository
from amiss_serving.service import Service
from amiss_serving.settings import Settings
from amiss_serving.tracing import choose_tracer

from .conftest import FakeRuntime


@dataclass
class Seams:
    """What `serving` builds with `build`; before_load is called in the thread that loads."""

    models: Path
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    before_load: Callable[[], object] = lambda: None
    stalled_after_s: float = 4.0
    mode: str = "none"
    service: Service = field(init=False)

    def build(self, settings: Settings) -> Service:
        """The service, whose every detector runs on `runtime`."""
        metrics = Metrics(CollectorRegistry())
        self.service = Service(
            DetectorRepository(self.models, self._load, mode=self.mode),  # type: ignore[arg-type]
            Engine(metrics, stalled_after_s=self.stalled_after_s),
            metrics,
            limits=Limits(max_rows=8, max_bytes=10_000, max_pixels=10_000),
            default_timeout_s=5,
            tracer=choose_tracer(settings.trace_endpoint, {}),
        )
        return self.service

    def _load(self, name: str, version: int) -> LoadedDetector:
        self.before_load()
        return replace(load_detector(self.models, name, version), runtime=self.runtime)
