"""The running service: three doors open on one event loop, bundles loaded, drained on SIGTERM."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from amiss_serving.auth import Gate
from amiss_serving.detector import LoadedDetector, load_detector
from amiss_serving.engine import Engine
from amiss_serving.grpc_server import GrpcServer, build_grpc_server
from amiss_serving.http_door import HttpDoor
from amiss_serving.http_server import build_http_app, build_metrics_app
from amiss_serving.inputs import Limits
from amiss_serving.logs import configure_logs
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository
from amiss_serving.runtimes import (
    RuntimeOptions,
    choose_device,
    spare_device_memory,
    warm_up_rows,
)
from amiss_serving.service import Service
from amiss_serving.settings import Settings
from amiss_serving.shadow import Shadow
from amiss_serving.sockets import UNIX, address_of, listen_tcp, listen_unix, unix_socket
from amiss_serving.tracing import choose_tracer
from amiss_serving.watch import polling

_GOODBYE_S = 1  # for answers already written to leave; the work itself had drain_s
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SWITCH_S = 0.0005
_GC_THRESHOLDS = (50_000, 20, 20)
_KEEP_ALIVE_S = 65  # a little longer than load balancers keep theirs
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Addresses:
    """Where the doors are, HOST:PORT or unix:PATH, and the NAME@VERSION behind each name."""

    http: str
    grpc: str
    metrics: str
    detectors: tuple[str, ...] = ()  # until the bundles are loaded


def run(settings: Settings, on_ready: Callable[[Addresses], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return the exit code 0. A second one ends at once.

    on_ready is called once, with the addresses, when the bundles are loaded.
    Raises BadInput when the settings cannot be served or a port is in use.
    """
    settings.validate()
    configure_logs(settings.log_level)
    _tune_python()
    spare_device_memory(settings.runtime)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(settings, on_ready))
    return 0


@asynccontextmanager
async def serving(
    settings: Settings, build: Callable[[Settings], Service] | None = None
) -> AsyncIterator[Addresses]:
    """The addresses of a service that is ready; on the way out it drains.

    Its doors answer, that it is starting, while the bundles are being loaded.
    build: makes what is behind the doors, build_service unless a test brings its own.
    """
    settings.validate()
    gate = Gate(settings.read_token())
    with ExitStack() as stack:
        http_listener = _listen_http(settings, stack)
        metrics_listener = stack.enter_context(
            listen_tcp(settings.host, settings.metrics_port, option="--metrics-port")
        )
        service = (build or build_service)(settings)
        grpc_server, health = build_grpc_server(service, gate)
        addresses = Addresses(
            http=address_of(http_listener, settings.host, path=settings.http_socket),
            grpc=_bind_grpc(grpc_server, settings, stack),
            metrics=address_of(metrics_listener, settings.host),
        )
        http = _Http(build_http_app(service, gate), http_listener)
        metrics = _Http(build_metrics_app(service, gate), metrics_listener)
        await health.publish()
        await asyncio.gather(grpc_server.start(), http.start(), metrics.start())
        watching = (health.watch(), service.keep_time(), grpc_server.watch())
        background = [asyncio.create_task(work) for work in watching]
        try:
            logger.info("starting", extra={"fields": asdict(addresses)})
            await service.start()
            await health.publish()
            # Their names only: what this frame held would never be let go of.
            answering = (f"{d.name}@{d.version}" for d in service.repository.answering())
            addresses = replace(addresses, detectors=tuple(answering))
            _say_ready(addresses, settings)
            with polling(service.repository, settings.poll_s):
                yield addresses
        finally:
            logger.info("draining")
            await health.fail()  # first, so that nobody sends more while the last are answered
            await service.drain(settings.drain_s, delay_s=settings.drain_delay_s)
            await asyncio.gather(grpc_server.stop(_GOODBYE_S), http.stop(), metrics.stop())
            for task in background:
                task.cancel()
            await service.tracer.close()
            logger.info("stopped")


def _say_ready(addresses: Addresses, settings: Settings) -> None:
    if addresses.detectors:
        logger.info("ready", extra={"fields": asdict(addresses)})
        return
    missing = "" if Path(settings.models).is_dir() else ", which does not exist"
    logger.warning(
        f"no detector is loaded from {settings.models}{missing}: alive, but not ready to score",
        extra={"fields": asdict(addresses)},
    )


def build_service(settings: Settings) -> Service:
    """The room behind the doors, its bundles yet to be loaded. Needs a running event loop."""
    device = choose_device(settings.device, settings.runtime)
    logger.info(str(device))
    models = Path(settings.models)
    metrics = Metrics(CollectorRegistry())
    options = RuntimeOptions(
        kind=settings.runtime,
        device=device.name,
        threads=settings.threads,
        gpu_mem_limit_bytes=settings.gpu_mem_limit_bytes,
        provider_options=settings.provider_options(),
        warm_up_rows=settings.warm_up_rows or warm_up_rows(device, settings.max_batch_rows),
        workers=settings.parallel_runs,
        on_restart=lambda name, version: metrics.model(name, version).worker_restarts.inc(),
    )

    def load(name: str, version: int) -> LoadedDetector:
        return load_detector(models, name, version, options=options)

    repository = DetectorRepository(models, load, mode=settings.repository_mode)
    engine = Engine(
        metrics,
        max_batch_rows=settings.max_batch_rows,
        batch_delay_s=settings.batch_delay_ms / 1000,
        max_queue_rows=settings.max_queue_rows,
        max_request_rows=settings.max_request_rows,
        parallel_runs=settings.parallel_runs,
        stalled_after_s=settings.stalled_after_s,
    )
    limits = Limits(
        max_rows=settings.max_request_rows,
        max_bytes=settings.max_body_bytes,
        max_pixels=settings.max_image_pixels,
    )
    return Service(
        repository,
        engine,
        metrics,
        limits=limits,
        default_timeout_s=settings.default_timeout_s,
        shadow=_shadow(settings, repository, metrics),
        tracer=choose_tracer(settings.trace_endpoint, os.environ),
    )


def _shadow(settings: Settings, repository: DetectorRepository, metrics: Metrics) -> Shadow | None:
    if settings.shadow_share == 0:
        return None
    return Shadow(
        repository, metrics, share=settings.shadow_share, max_rows=settings.max_batch_rows
    )


class _Http(uvicorn.Server):
    """uvicorn on a socket that is already bound, without its own signal handling."""

    def __init__(self, app: HttpDoor, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GOODBYE_S,
        )
        super().__init__(config)
        self._listener = listener

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGTERM and SIGINT to the service as a whole."""
        yield

    async def start(self) -> None:
        """Return when connections are accepted."""
        self._task = asyncio.create_task(self.serve(sockets=[self._listener]))
        while not self.started and not self._task.done():
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Close the listener, then the connections."""
        self.should_exit = True
        await self._task


def _tune_python() -> None:
    """Have Python look for cycles seldom, never among what is imported by now, and share soon.

    By default it looks every few requests, which costs a quarter of their time; requests leave no
    cycles. A thread whose model has come back waits 5 ms for its turn by default, longer than many
    models take, while a door reads or refuses requests.
    """
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def _until_signalled(
    settings: Settings, on_ready: Callable[[Addresses], None] | None
) -> None:
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()

    ours = asyncio.current_task()
    is_ready = False

    def drain() -> None:
        signalled.set()
        if ours and not is_ready:
            ours.cancel()  # nobody waits for bundles that are still being loaded
        for number in _SIGNALS:  # the next one ends the process, whatever it is at
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, drain)
    try:
        async with serving(settings) as addresses:
            is_ready = True
            if on_ready:
                on_ready(addresses)
            await signalled.wait()
    except asyncio.CancelledError:
        if not signalled.is_set():
            raise


def _listen_http(settings: Settings, stack: ExitStack) -> socket.socket:
    """The listener of the HTTP door, closed with the stack."""
    if settings.http_socket is None:
        listener = listen_tcp(settings.host, settings.http_port, option="--http-port")
    else:
        claim = unix_socket(settings.http_socket, listen_unix, option="--http-socket")
        listener = stack.enter_context(claim)
    return stack.enter_context(listener)


def _bind_grpc(server: GrpcServer, settings: Settings, stack: ExitStack) -> str:
    """The address at which gRPC will answer, given up with the stack."""
    if settings.grpc_socket is None:
        # A probe: gRPC's own word for a port in use is a page of internals.
        with listen_tcp(settings.host, settings.grpc_port, option="--grpc-port") as free:
            address = address_of(free, settings.host)
        server.add_insecure_port(address)
        return address

    def bind(path: str) -> None:
        server.add_insecure_port(f"{UNIX}{path}")

    stack.enter_context(unix_socket(settings.grpc_socket, bind, option="--grpc-socket"))
    return f"{UNIX}{settings.grpc_socket}"
