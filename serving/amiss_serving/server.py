"""The running service: bundles loaded, three ports open on one event loop, drained on SIGTERM."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from amiss_export.errors import BadInput
from amiss_serving.auth import Gate
from amiss_serving.detector import LoadedDetector, load_detector
from amiss_serving.engine import Engine
from amiss_serving.grpc_server import build_grpc_server
from amiss_serving.http_door import HttpDoor
from amiss_serving.http_server import build_http_app, build_metrics_app
from amiss_serving.inputs import Limits
from amiss_serving.logs import configure_logs
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository
from amiss_serving.runtimes import choose_device
from amiss_serving.service import Service
from amiss_serving.settings import Settings

_GOODBYE_S = 1  # for answers already written to leave; the work itself had drain_s
_BACKLOG = 1024
_KEEP_ALIVE_S = 65  # a little longer than load balancers keep theirs
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Addresses:
    """Where the doors are, each HOST:PORT, and the NAME@VERSION that answers for each name."""

    http: str
    grpc: str
    metrics: str
    detectors: tuple[str, ...]


def run(settings: Settings, on_ready: Callable[[Addresses], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return the exit code 0.

    on_ready is called once, with the addresses, when every door is open.
    Raises BadInput when the settings cannot be served or a port is in use.
    """
    settings.validate()
    configure_logs(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(settings, on_ready))
    return 0


@asynccontextmanager
async def serving(
    settings: Settings, build: Callable[[Settings], Service] | None = None
) -> AsyncIterator[Addresses]:
    """The addresses of a service that is up; on the way out it drains.

    build: makes what is behind the doors, build_service unless a test brings its own.
    """
    settings.validate()
    gate = Gate(settings.read_token())
    with ExitStack() as stack:
        http_socket = stack.enter_context(_bind(settings, "http_port"))
        metrics_socket = stack.enter_context(_bind(settings, "metrics_port"))
        grpc_address = _address(settings.host, _grpc_port(settings))
        service = (build or build_service)(settings)
        grpc_server, health = build_grpc_server(service, gate)
        grpc_server.add_insecure_port(grpc_address)
        http = _Http(build_http_app(service, gate), http_socket)
        metrics = _Http(build_metrics_app(service, gate), metrics_socket)
        await health.publish()
        await grpc_server.start()
        await http.start()
        await metrics.start()
        addresses = Addresses(
            http=_address(settings.host, http.port),
            grpc=grpc_address,
            metrics=_address(settings.host, metrics.port),
            detectors=tuple(f"{d.name}@{d.version}" for d in service.repository.answering()),
        )
        logger.info("ready", extra={"fields": asdict(addresses)})
        if not service.repository.detectors():
            logger.warning(
                f"no detector is loaded from {settings.models}: alive, but not ready to score"
            )
        try:
            yield addresses
        finally:
            logger.info("draining")
            await health.fail()  # first, so that nobody sends more while the last are answered
            await service.drain(settings.drain_s)
            await asyncio.gather(grpc_server.stop(_GOODBYE_S), http.stop(), metrics.stop())
            logger.info("stopped")


def build_service(settings: Settings) -> Service:
    """The room behind the doors, its bundles loaded. Needs a running event loop."""
    device = choose_device(settings.device)
    logger.info(str(device))
    models = Path(settings.models)

    def load(name: str, version: int) -> LoadedDetector:
        return load_detector(models, name, version, device=device.name, threads=settings.threads)

    repository = DetectorRepository(models, load)
    repository.scan()
    metrics = Metrics(CollectorRegistry())
    for detector, load_s in repository.load_duration_s.items():
        alarm_rate = detector.rule.decision.alarm_rate
        metrics.announce(detector.name, detector.version, alarm_rate=alarm_rate, load_s=load_s)
    engine = Engine(
        metrics,
        max_batch_rows=settings.max_batch_rows,
        batch_delay_s=settings.batch_delay_ms / 1000,
        max_queue_rows=settings.max_queue_rows,
        max_request_rows=settings.max_request_rows,
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
        self.port = int(listener.getsockname()[1])
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


async def _until_signalled(
    settings: Settings, on_ready: Callable[[Addresses], None] | None
) -> None:
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    async with serving(settings) as addresses:
        if on_ready:
            on_ready(addresses)
        await signalled.wait()


def _bind(settings: Settings, key: str) -> socket.socket:
    host, port = settings.host, int(getattr(settings, key))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BadInput(f"host {host!r} is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else answers wait 40 ms
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error}"
        raise BadInput(
            f"port {port} on {host} {reason}; stop what listens there, or choose another with "
            f"--{key.replace('_', '-')}"
        ) from error
    return listener


def _grpc_port(settings: Settings) -> int:
    """The port for gRPC, seen free. gRPC's own word for a port in use is a page of internals."""
    with _bind(settings, "grpc_port") as probe:
        return int(probe.getsockname()[1])


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
