"""A detector whose model is a seam, and a whole service on free ports."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from amiss_serving.detector import LoadedDetector, load_detector
from amiss_serving.engine import Engine
from amiss_serving.inputs import Limits
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository
from amiss_serving.runtime import Runtime
from amiss_serving.runtimes import RuntimeOptions
from amiss_serving.server import Addresses, serving
from amiss_serving.service import Service
from amiss_serving.settings import Settings
from bundle_factory import write_image_bundle, write_table_bundle

TOKEN = "correct-horse"
POISON = 666.0
CPU = RuntimeOptions(device="cpu")


@dataclass(eq=False)
class FakeRuntime(Runtime):
    """Scores a row by its first value, remembers its calls, waits while `free` is not set."""

    device: str = "fake"
    calls: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    free: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.free.set()

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        self.calls.append((len(x), outputs))
        self.entered.set()
        assert self.free.wait(timeout=10)
        if (x == POISON).any():
            raise RuntimeError("poisoned row")
        values = {"score": x[:, 0].copy(), "reconstruction": x + 1}
        return {output: values[output] for output in outputs}


MakeDetector = Callable[[Runtime], LoadedDetector]


@pytest.fixture(scope="session")
def make_detector(tmp_path_factory: pytest.TempPathFactory) -> MakeDetector:
    """A real table detector (three columns) with the given runtime in the place of its own."""
    models = tmp_path_factory.mktemp("models")
    loaded = load_detector(models, "table", write_table_bundle(models), options=CPU)
    return lambda runtime: replace(loaded, runtime=runtime)


@dataclass(frozen=True)
class Served:
    """A running service and the folder it serves: table@1, image@1, and broken@1 refused."""

    addresses: Addresses
    models: Path

    @property
    def http(self) -> str:
        return f"http://{self.addresses.http}"

    @property
    def metrics(self) -> str:
        return f"http://{self.addresses.metrics}/metrics"


def fill(models: Path) -> None:
    """Bundles table@1 (with a category), image@1, and broken@1 with one byte flipped."""
    write_table_bundle(models, categories=("red", "green"))
    write_image_bundle(models)
    write_table_bundle(models, "broken")
    graph = models / "broken" / "1" / "model.onnx"
    contents = bytearray(graph.read_bytes())
    contents[len(contents) // 2] ^= 1
    graph.write_bytes(contents)


def free_ports(models: Path, **options: Any) -> Settings:
    """Settings of a service on free ports."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    return Settings(models=str(models), device="cpu", **{**ports, **options})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """An open service with small limits: 50 rows, 200 kB."""
    models = tmp_path_factory.mktemp("models")
    fill(models)
    settings = free_ports(models, max_request_rows=50, max_body_bytes=200_000)
    async with serving(settings) as addresses:
        yield Served(addresses, models)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A service behind TOKEN."""
    models = tmp_path_factory.mktemp("models")
    fill(models)
    async with serving(free_ports(models, token=TOKEN)) as addresses:
        yield Served(addresses, models)


@dataclass(frozen=True)
class Slow(Served):
    """A service whose table@1 waits for runtime.free; `stop` begins its drain and waits for it."""

    runtime: FakeRuntime
    stop: Callable[[], Awaitable[None]]


@pytest_asyncio.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Slow]:
    """A service with a model that is under the test's control."""
    write_table_bundle(tmp_path)
    runtime = FakeRuntime()

    def build(settings: Settings) -> Service:
        def load(name: str, version: int) -> LoadedDetector:
            return replace(load_detector(tmp_path, name, version, options=CPU), runtime=runtime)

        repository = DetectorRepository(tmp_path, load)
        metrics = Metrics(CollectorRegistry())
        limits = Limits(max_rows=8, max_bytes=10_000, max_pixels=10_000)
        engine = Engine(metrics, max_queue_rows=8)
        return Service(repository, engine, metrics, limits=limits, default_timeout_s=5)

    async with AsyncExitStack() as stack:
        settings = free_ports(tmp_path, drain_s=2)
        addresses = await stack.enter_async_context(serving(settings, build))
        yield Slow(addresses, tmp_path, runtime, stack.aclose)
        runtime.free.set()


def rows(*first: float) -> NDArray[np.float32]:
    """(n, 3) rows for the fake: the given first values, zeros behind."""
    x = np.zeros((len(first), 3), dtype=np.float32)
    x[:, 0] = first
    return x
