"""The gRPC door: amiss.v1.ScoringService, grpc.health.v1 and reflection. It only translates."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from amiss.v1 import scoring_pb2 as pb
from amiss.v1 import scoring_pb2_grpc
from amiss_export.errors import AmissError, BadInput
from amiss_serving import errors
from amiss_serving.auth import Context, Gate, GrpcGate, Handler
from amiss_serving.grpc_messages import (
    decoder,
    detector_message,
    refused_message,
    score_response,
    size_bytes,
)
from amiss_serving.service import OTHER, Call, Service, aside

SCORING = pb.DESCRIPTOR.services_by_name["ScoringService"]
STATUS: dict[type[Exception], grpc.StatusCode] = {
    BadInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.DetectorNotFound: grpc.StatusCode.NOT_FOUND,
    errors.NoSuchMethod: grpc.StatusCode.UNIMPLEMENTED,
    errors.TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CallerGone: grpc.StatusCode.CANCELLED,
    AmissError: grpc.StatusCode.INTERNAL,
}
# A full queue is told from a request that is too large for good: both are RESOURCE_EXHAUSTED.
TRAILERS: dict[type[Exception], tuple[tuple[str, str], ...]] = {
    errors.QueueFull: (("retry-after", "1"),),
    errors.NotReady: (("retry-after", "1"),),
}
_MESSAGE_CHARACTERS = 2_000  # the status travels in headers, and those are bounded
_MESSAGE_OVERHEAD_BYTES = 64 * 1024

T = TypeVar("T")


class ScoringServicer(scoring_pb2_grpc.ScoringServiceServicer):
    """amiss.v1.ScoringService on top of the service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:  # noqa: N802  the wire's name
        async def work(call: Call) -> pb.ScoreResponse:
            answer = await self._service.score(
                call,
                name=request.detector,
                version=request.version,
                decode=decoder(request),
                size_bytes=size_bytes(request),
                timeout_s=context.time_remaining(),
                reconstruct=request.include_reconstruction,
            )
            with call.phase("encode"):
                reconstruction = answer.scored.reconstruction
                size = 0 if reconstruction is None else reconstruction.nbytes
                return await aside(size, score_response, answer)

        return await self._answer("Score", context, work)

    async def ListDetectors(  # noqa: N802  the wire's name
        self, _request: pb.ListDetectorsRequest, context: Context
    ) -> pb.ListDetectorsResponse:
        async def work(_: Call) -> pb.ListDetectorsResponse:
            repository = self._service.repository
            return pb.ListDetectorsResponse(
                detectors=map(detector_message, repository.detectors()),
                refused_bundles=map(refused_message, repository.refused),
            )

        return await self._answer("ListDetectors", context, work)

    async def GetDetector(  # noqa: N802  the wire's name
        self, request: pb.GetDetectorRequest, context: Context
    ) -> pb.GetDetectorResponse:
        async def work(call: Call) -> pb.GetDetectorResponse:
            call.detector = self._service.repository.resolve(request.name, request.version)
            return pb.GetDetectorResponse(detector=detector_message(call.detector))

        return await self._answer("GetDetector", context, work)

    async def deny(self, method: str, context: Context, error: Exception) -> None:
        """End an RPC that goes no further, known or not, with the error."""

        async def work(_: Call) -> None:
            raise error

        known = method.removeprefix(f"/{SCORING.full_name}/")
        await self._answer(known if known in SCORING.methods_by_name else OTHER, context, work)

    async def _answer(
        self, method: str, context: Context, work: Callable[[Call], Awaitable[T]]
    ) -> T:
        """What work returns; its errors as a status. Either way one line in log and metrics."""
        metadata = dict(context.invocation_metadata() or ())
        call = self._service.open("grpc", method, _text(metadata.get("x-request-id")))
        context.set_trailing_metadata((("x-request-id", call.request_id),))
        code = grpc.StatusCode.OK
        try:
            return await work(call)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            code, call.error = _status(error, call)
            trailers = TRAILERS.get(type(error), ())
            context.set_trailing_metadata((("x-request-id", call.request_id), *trailers))
            await context.abort(code, call.error)
        finally:
            call.close(code.name)


class _HealthServicer(health.aio.HealthServicer):
    """grpcio's own, whose List would be a traceback in the log."""

    async def List(self, _request: object, context: Context) -> None:  # noqa: N802  the wire's name
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "Check one by name; ListDetectors has the names"
        )


class HealthDoor:
    """grpc.health.v1: '' and amiss.v1.ScoringService for the whole, and each detector by name."""

    def __init__(self, service: Service) -> None:
        self.servicer = _HealthServicer()
        self._service = service

    async def publish(self) -> None:
        """Tell those who check and watch how things stand now."""
        repository = self._service.repository
        for whole in ("", SCORING.full_name):
            await self.servicer.set(whole, _serving(bool(repository.detectors())))
        answering = {detector.name for detector in repository.answering()}
        for name in repository.names():
            await self.servicer.set(name, _serving(name in answering))

    async def fail(self) -> None:
        """Say NOT_SERVING everywhere, for good: the service is going away."""
        await self.servicer.enter_graceful_shutdown()


def build_grpc_server(service: Service, gate: Gate) -> tuple[grpc.aio.Server, HealthDoor]:
    """The server, not yet bound to a port, and its health, not yet published."""
    scoring = ScoringServicer(service)
    most = service.limits.max_bytes + _MESSAGE_OVERHEAD_BYTES
    server = grpc.aio.server(
        interceptors=[GrpcGate(gate, scoring.deny)],
        options=[
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),  # bounded by the rows of the request
            ("grpc.so_reuseport", 0),  # else a second service would share the port unnoticed
        ],
    )
    handlers = {method.name: _handler(scoring, method) for method in SCORING.methods}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SCORING.full_name, handlers),)
    )
    door = HealthDoor(service)
    health_pb2_grpc.add_HealthServicer_to_server(door.servicer, server)
    names = (SCORING.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server, door


def _handler(scoring: ScoringServicer, method: MethodDescriptor) -> Handler:
    """One RPC as the generated code has it, but a message that is none is bad input like any."""
    request_class, response_class = map(GetMessageClass, (method.input_type, method.output_type))
    answer = getattr(scoring, method.name)

    def read(data: bytes) -> Message | BadInput:
        try:
            return request_class.FromString(data)
        except DecodeError as error:
            return BadInput(
                f"expected a message {method.input_type.full_name}, got {len(data)} bytes: {error}"
            )

    async def handle(request: Message | BadInput, context: Context) -> Message:
        if isinstance(request, BadInput):
            await scoring.deny(f"/{SCORING.full_name}/{method.name}", context, request)
        response: Message = await answer(request, context)
        return response

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=read, response_serializer=response_class.SerializeToString
    )


def _status(error: Exception, call: Call) -> tuple[grpc.StatusCode, str]:
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind], str(error)[:_MESSAGE_CHARACTERS]
    return grpc.StatusCode.INTERNAL, call.explain(error)


def _serving(ready: bool) -> int:
    status = health_pb2.HealthCheckResponse
    return status.SERVING if ready else status.NOT_SERVING


def _text(value: str | bytes | None) -> str | None:
    return value if isinstance(value, str) else None
