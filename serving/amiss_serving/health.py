"""grpc.health.v1: how the whole and each detector stand, for those who check and who watch."""

import asyncio
import logging
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2

from amiss_serving.grpc_bridge import AsyncContext, StreamContext
from amiss_serving.service import Service

REPUBLISH_S = 0.25  # what stalls, loads or unloads shows this much later at most
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
logger = logging.getLogger(__name__)


class HealthServicer:
    """grpc.health.v1.Health for one event loop.

    grpcio's own holds a name locked while it writes to who watches it: one caller that does not
    read would stop the word for all.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._is_over = False

    async def set(self, statuses: Mapping[str, int]) -> None:
        """Tell those who check and watch."""
        if not self._is_over:
            await self._tell(statuses)

    async def end(self) -> None:
        """Say NOT_SERVING everywhere, for good."""
        self._is_over = True
        await self._tell(dict.fromkeys(self._statuses, NOT_SERVING))

    async def Check(  # noqa: N802  the wire's name
        self, request: health_pb2.HealthCheckRequest, context: AsyncContext
    ) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing of that name was ever served")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802  the wire's name
        self, request: health_pb2.HealthCheckRequest, context: StreamContext
    ) -> None:
        told: int | None = None

        def is_news() -> bool:
            return self._status(request.service) != told

        while True:
            async with self._changed:
                await self._changed.wait_for(is_news)
            told = self._status(request.service)
            await context.write(health_pb2.HealthCheckResponse(status=told))

    async def List(self, _request: object, context: AsyncContext) -> None:  # noqa: N802  the wire's name
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "Check one by name; ListDetectors has the names"
        )

    def _status(self, name: str) -> int:
        return self._statuses.get(name, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)

    async def _tell(self, statuses: Mapping[str, int]) -> None:
        async with self._changed:
            self._statuses.update(statuses)
            self._changed.notify_all()


class HealthDoor:
    """grpc.health.v1: '' and each RPC service for the whole, and each detector by name.

    A name that was served and is gone stays NOT_SERVING: who watches it hears when it is back.
    """

    def __init__(self, service: Service, *, services: tuple[str, ...]) -> None:
        self.servicer = HealthServicer()
        self._service = service
        self._wholes = ("", *services)
        self._published: dict[str, int] = {}

    async def publish(self) -> None:
        """Tell those who check and watch what has changed."""
        standing = self._standing()
        gone = dict.fromkeys(self._published.keys() - standing.keys(), NOT_SERVING)
        statuses = {**standing, **gone}
        if statuses != self._published:
            self._published = statuses
            await self.servicer.set(statuses)

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
        await self.servicer.end()

    def _standing(self) -> dict[str, int]:
        """The status of every name. A stalled model turns all red: only a restart frees it."""
        ready = self._service.is_ready()
        standing: dict[str, int] = dict.fromkeys(self._wholes, SERVING if ready else NOT_SERVING)
        if self._service.is_starting:
            return standing
        repository = self._service.repository
        answering = {detector.name for detector in repository.answering()} if ready else set()
        for name in repository.names():
            standing[name] = SERVING if name in answering else NOT_SERVING
        return standing
