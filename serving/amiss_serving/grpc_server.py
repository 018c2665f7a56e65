"""The gRPC door: amiss.v1, inference, grpc.health.v1 and reflection. It only translates."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from amiss.v1 import scoring_pb2 as pb
from amiss_serving import oip_grpc
from amiss_serving.auth import HEALTH, Gate, GrpcRouter
from amiss_serving.grpc_bridge import AsyncContext
from amiss_serving.grpc_door import GrpcDoor, Scoring
from amiss_serving.grpc_internals import is_supported
from amiss_serving.grpc_loop import RpcLoop
from amiss_serving.grpc_messages import (
    decoder,
    detector_message,
    refused_message,
    score_response,
    size_bytes,
)
from amiss_serving.grpc_repeats import Repeats
from amiss_serving.health import HealthDoor
from amiss_serving.model_service import MODELS, ModelServicer
from amiss_serving.oip_grpc import INFERENCE, InferenceServicer
from amiss_serving.service import Answer, Ask, Call, Service
from amiss_serving.turn import Turn

SCORING = pb.DESCRIPTOR.services_by_name["ScoringService"]
_MESSAGE_OVERHEAD_BYTES = 64 * 1024
_WATCH_EVERY_S = 0.1
_THREADS = 16  # for what is refused, and to begin streams: nothing waits in them
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


class ScoringServicer:
    """amiss.v1.ScoringService on top of the service."""

    def __init__(self, service: Service, door: GrpcDoor) -> None:
        self._service = service
        self._door = door

    async def ListDetectors(  # noqa: N802  the wire's name
        self, _request: pb.ListDetectorsRequest, context: AsyncContext
    ) -> pb.ListDetectorsResponse:
        async def work(_: Call) -> pb.ListDetectorsResponse:
            repository = self._service.repository
            return pb.ListDetectorsResponse(
                detectors=map(detector_message, repository.detectors()),
                refused_bundles=map(refused_message, repository.refused),
            )

        return await self._door.answer("ListDetectors", context, work)

    async def GetDetector(  # noqa: N802  the wire's name
        self, request: pb.GetDetectorRequest, context: AsyncContext
    ) -> pb.GetDetectorResponse:
        async def work(call: Call) -> pb.GetDetectorResponse:
            detector = call.found(self._service.repository.resolve(request.name, request.version))
            return pb.GetDetectorResponse(detector=detector_message(detector))

        return await self._door.answer("GetDetector", context, work)


class GrpcServer:
    """grpcio's server, started and stopped from the event loop."""

    def __init__(self, server: grpc.Server, loop: RpcLoop | None) -> None:
        self._server = server
        self._loop = loop

    def add_insecure_port(self, address: str) -> int:
        """The port that was bound."""
        return self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Return when RPCs are accepted."""
        (self._loop or self._server).start()

    async def watch(self) -> None:
        """See to it that RPCs come in though a model does not come back; until cancelled."""
        while self._loop:
            self._loop.relieve()
            await asyncio.sleep(_WATCH_EVERY_S)

    async def stop(self, grace_s: float) -> None:
        """Refuse new RPCs, let those under way finish for grace_s, cut off the rest."""
        await asyncio.to_thread(self._server.stop(grace_s).wait)


def build_grpc_server(service: Service, gate: Gate) -> tuple[GrpcServer, HealthDoor]:
    """The server, not yet bound to a port, and its health, not yet published.

    Needs a running event loop: RPCs that do not score run on it.
    """
    most = service.limits.max_bytes + _MESSAGE_OVERHEAD_BYTES
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),  # bounded by the rows of the request
            ("grpc.so_reuseport", 0),  # else a second service would share the port unnoticed
        ],
    )
    turn = Turn(service.clock) if is_supported() else None
    door = GrpcDoor(service, turn)
    router = GrpcRouter(gate, door.refuse)
    server.add_generic_rpc_handlers((router,))
    door.add(router, SCORING, ScoringServicer(service, door), RPCS_THAT_SCORE)
    door.add(router, MODELS, ModelServicer(service, door))
    door.add(router, INFERENCE, InferenceServicer(service, door), oip_grpc.SCORING)
    services = tuple(described.full_name for described in (SCORING, MODELS, INFERENCE))
    health_door = HealthDoor(service, services=services)
    door.add(router, HEALTH, health_door.servicer)  # type: ignore[arg-type]  # its stubs name the class twice
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    door.add(router, REFLECTION, reflection.aio.ReflectionServicer(names))  # type: ignore[arg-type]  # its stubs name the class twice
    return GrpcServer(server, RpcLoop(server, router.find, turn) if turn else None), health_door


def _ask(request: pb.ScoreRequest) -> Ask:
    return Ask(
        name=request.detector,
        version=request.version,
        decode=decoder(request),
        size_bytes=size_bytes(request),
        reconstruct=request.include_reconstruction,
    )


def _response(answer: Answer, _: None) -> bytes:
    return score_response(answer).SerializeToString()


def _payload(request: pb.ScoreRequest) -> bytes:
    return request.tensor.data


RPCS_THAT_SCORE = {
    "Score": Scoring(Repeats(pb.ScoreRequest, _ask, _payload, lambda _: None), _response)
}
