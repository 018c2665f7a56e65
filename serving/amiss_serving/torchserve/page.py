"""Our own page beside TorchServe: how its workers fare, for Prometheus and for probes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from amiss_serving.errors import NotReady
from amiss_serving.metrics import MODEL
from amiss_serving.sockets import address_of, listen_tcp
from amiss_serving.torchserve.config import HOST

_START_LOOK_S = 0.01


class WorkerMetrics:
    """The families of the page, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # As in amiss_serving.metrics: a gauge beside every counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.restarts = Counter(
            "amiss_worker_restarts_total",
            "Workers of TorchServe that took the place of one that died.",
            MODEL,
            registry=self.registry,
        )
        self.live = Gauge(
            "amiss_live_workers",
            "Workers of TorchServe that are alive and have loaded the model.",
            MODEL,
            registry=self.registry,
        )
        self.ready = Gauge(
            "amiss_ready", "1 when every model has a live worker.", registry=self.registry
        )


def build_page(metrics: WorkerMetrics, check_ready: Callable[[], None]) -> Starlette:
    """/metrics, /healthz and /readyz. check_ready: raises NotReady, with the reason."""

    async def page(_: Request) -> Response:
        headers = {"content-type": CONTENT_TYPE_LATEST}
        return Response(generate_latest(metrics.registry), headers=headers)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        if reason := why_not_ready():
            return JSONResponse({"error": reason}, 503, headers={"retry-after": "1"})
        return JSONResponse({"status": "ready"})

    def why_not_ready() -> str:
        try:
            check_ready()
        except NotReady as error:
            return str(error)
        return ""

    metrics.ready.set_function(lambda: not why_not_ready())

    return Starlette(
        routes=[Route("/metrics", page), Route("/healthz", healthz), Route("/readyz", readyz)]
    )


@contextmanager
def serving_page(app: Starlette, port: int) -> Iterator[str]:
    """HOST:PORT on loopback where the page answers while the block runs.

    Raises BadInput when the port is in use.
    """
    with listen_tcp(HOST, port, option="--metrics-port") as listener:
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, server_header=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield address_of(listener, HOST)
        finally:
            server.should_exit = True
            thread.join()
