"""grpc.health.v1: how the whole and each detector stand, for those who check and who watch."""

import asyncio
import logging

import grpc
from grpc_health.v1 import health, health_pb2

from amiss_serving.errors import NotReady
from amiss_serving.grpc_bridge import AsyncContext
from amiss_serving.service import Service

REPUBLISH_S = 0.25  # what stalls, loads or unloads shows this much later at most
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
logger = logging.getLogger(__name__)


class _HealthServicer(health.aio.HealthServicer):
    """grpcio's own, whose List would be a traceback in the log."""

    async def List(self, _request: object, context: AsyncContext) -> None:  # noqa: N802  the wire's name
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "Check one by name; ListDetectors has the names"
        )


class HealthDoor:
    """grpc.health.v1: '' and each RPC service for the whole, and each detector by name.

    A name that was served and is gone stays NOT_SERVING: who watches it hears when it is back.
    """

    def __init__(self, service: Service, *, services: tuple[str, ...]) -> None:
        self.servicer = _HealthServicer()
        self._service = service
        self._wholes = ("", *services)
        self._published: dict[str, int] = {}

    async def publish(self) -> None:
        """Tell those who check and watch what has changed."""
        standing = self._standing()
        gone = dict.fromkeys(self._published.keys() - standing.keys(), NOT_SERVING)
        for name, status in {**standing, **gone}.items():
            if self._published.get(name) != status:
                self._published[name] = status
                await self.servicer.set(name, status)

    async def watch(self) -> None:
        """Publish over and over, until cancelled."""
        while True:
            try:
                await self.publish()
            except Exception:  # one bad look must not leave the last word standing for good
                logger.exception("health could not be published")
            await asyncio.sleep(REPUBLISH_S)

    async def fail(self) -> None:
        """Say NOT_SERVING everywhere, for good: the service is going away."""
        await self.servicer.enter_graceful_shutdown()

    def _standing(self) -> dict[str, int]:
        """The status of every name. A stalled model turns all red: only a restart frees it."""
        try:
            self._service.check_ready()
        except NotReady:
            ready = False
        else:
            ready = True
        standing: dict[str, int] = dict.fromkeys(self._wholes, SERVING if ready else NOT_SERVING)
        if self._service.is_starting:
            return standing
        repository = self._service.repository
        answering = {detector.name for detector in repository.answering()} if ready else set()
        for name in repository.names():
            standing[name] = SERVING if name in answering else NOT_SERVING
        return standing
