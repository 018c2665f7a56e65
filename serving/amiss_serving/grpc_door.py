"""What surrounds every RPC: its id, the error table, the line in the log. The gRPC HttpDoor."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from amiss_export.errors import AmissError, BadInput
from amiss_serving import errors
from amiss_serving.auth import GrpcRouter
from amiss_serving.grpc_bridge import AsyncContext, StreamContext, stream, unary
from amiss_serving.grpc_calls import Begin, Metadata, Rpc, RpcHandler
from amiss_serving.grpc_repeats import Repeats, parse
from amiss_serving.service import INLINE_BYTES, OTHER, Answer, Call, Service
from amiss_serving.tracing import UNKNOWN
from amiss_serving.turn import Turn

STATUS: dict[type[Exception], grpc.StatusCode] = {
    BadInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.SwitchedOff: grpc.StatusCode.PERMISSION_DENIED,
    errors.LoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
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

T = TypeVar("T")
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Scoring(Generic[F]):
    """How an RPC that scores is translated: bytes to what is asked, the answer to bytes."""

    requests: Repeats[Any, F]
    response: Callable[[Answer, F], bytes]


class GrpcDoor:
    """Servicers answer their RPCs through it; what is refused before one is found, it answers.

    RPCs that score never touch the event loop: they begin on the thread that they come in on, the
    turn's if there is one. The others run on the loop it was made on.
    """

    def __init__(self, service: Service, turn: Turn | None = None) -> None:
        self._service = service
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._methods: dict[str, str] = {}  # the path on the wire: the name in log and metrics
        self._full_names: dict[str, str] = {}  # that name: PACKAGE.SERVICE/METHOD, in traces

    def add(
        self,
        router: GrpcRouter,
        described: ServiceDescriptor,
        servicer: object,
        scoring: Mapping[str, Scoring[Any]] = MappingProxyType({}),
    ) -> None:
        """Let the servicer's methods answer the RPCs of the service described, and `scoring`'s."""
        for method in described.methods:
            full_name = f"{described.full_name}/{method.name}"
            self._methods[f"/{full_name}"] = method.name
            self._full_names[method.name] = full_name
            handler = (
                partial(self._score, method.name, scoring[method.name])
                if method.name in scoring
                else self._handler(method, getattr(servicer, method.name))
            )
            router.add(described.full_name, method.name, handler)

    def open(self, method: str, given: Metadata | None) -> Call:
        """The record of a request that has just arrived; close it when it is answered."""
        metadata = dict(given or ())
        span = self._service.tracer.rpc(self._full_names.get(method, UNKNOWN), metadata)
        return self._service.open("grpc", method, _text(metadata.get("x-request-id")), span)

    async def answer(
        self,
        method: str,
        context: AsyncContext,
        work: Callable[[Call], Awaitable[T]],
        *,
        quiet: bool = False,
    ) -> T:
        """What work returns; its errors as a status. Either way one line in log and metrics.

        quiet: a probe, whose line is at debug level while all is well.
        """
        call = self.open(method, context.invocation_metadata())
        context.set_trailing_metadata((("x-request-id", call.request_id),))
        code = grpc.StatusCode.OK
        try:
            return await work(call)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            code, call.error = status_of(error, call)
            trailers = TRAILERS.get(type(error), ())
            context.set_trailing_metadata((("x-request-id", call.request_id), *trailers))
            await context.abort(code, call.error)
            raise  # abort already has
        finally:
            call.close(code.name, quiet=quiet and code is grpc.StatusCode.OK)

    def refuse(self, path: str, context: grpc.ServicerContext, error: Exception) -> None:
        """End an RPC that goes no further, known or not, with the error."""
        call = self.open(self._methods.get(path, OTHER), context.invocation_metadata())
        code, call.error = status_of(error, call)
        call.close(code.name)
        context.set_trailing_metadata((("x-request-id", call.request_id),))
        context.abort(code, call.error)

    def _score(self, method: str, scoring: Scoring[F], data: bytes, rpc: Rpc) -> None:
        """Begin one RPC that scores. Where RPCs come in: large requests go on in another thread."""
        call = self.open(method, rpc.invocation_metadata())
        scored = _ScoringRpc(self._service, call, scoring, rpc)
        if len(data) > INLINE_BYTES:
            self._aside(scored.read, data)
        elif scored.read(data, most_bytes=INLINE_BYTES, turn=self._turn):
            self._aside(scored.begin)

    def _aside(self, work: Callable[..., object], *args: object) -> None:
        """Have the work done in a thread that may take its time."""
        self._loop.call_soon_threadsafe(self._loop.run_in_executor, None, work, *args)

    def _handler(self, method: MethodDescriptor, answer: Callable[..., Any]) -> Begin | RpcHandler:
        """One RPC as the generated code has it, but a message that is none is bad input like any.

        An RPC that streams finds the BadInput in its stream.
        """
        request_class: type[Message] = GetMessageClass(method.input_type)
        path = f"/{method.containing_service.full_name}/{method.name}"

        def read(data: bytes) -> Message | BadInput:
            try:
                return parse(request_class, data)
            except BadInput as error:
                return error

        async def whole(data: bytes, context: AsyncContext) -> Message:
            request = read(data)
            if isinstance(request, BadInput):
                await self._deny(path, context, request)
            response: Message = await answer(request, context)
            return response

        async def streamed(
            requests: AsyncIterator[bytes], context: StreamContext
        ) -> AsyncIterator[Message]:
            if method.client_streaming:
                async for response in answer((read(data) async for data in requests), context):
                    yield response
                return
            data = await anext(requests, None)
            if data is None:
                await self._deny(path, context, BadInput("expected one request message, got none"))
            else:
                await whole(data, context)  # it writes to the context

        if method.client_streaming or method.server_streaming:
            return stream(streamed, self._loop)
        return unary(whole, self._loop)

    async def _deny(self, path: str, context: AsyncContext, error: Exception) -> None:
        async def work(_: Call) -> None:
            raise error

        await self.answer(self._methods.get(path, OTHER), context, work)


class _ScoringRpc(Generic[F]):
    """One RPC that scores, on its way from request to response. Called from several threads."""

    def __init__(
        self,
        service: Service,
        call: Call,
        scoring: Scoring[F],
        rpc: Rpc,
    ) -> None:
        self._service = service
        self._call = call
        self._scoring = scoring
        self._rpc = rpc

    def read(self, data: bytes, *, most_bytes: float = math.inf, turn: Turn | None = None) -> bool:
        """Whether the request is yet to `begin`, elsewhere: it takes more work than most_bytes."""
        try:
            ask, self._form = self._scoring.requests.read(data)
            self._ask = ask.within(self._rpc.time_left_s())
        except Exception as error:
            self.finish(error)
            return False
        if self._ask.size_bytes > most_bytes:
            return True
        self.begin(turn)
        return False

    def begin(self, turn: Turn | None = None) -> None:
        """Submit the rows; `finish` is called once, unless the caller leaves before."""
        try:
            ticket = self._service.submit(self._call, self._ask, self.finish, turn)
        except Exception as error:
            self.finish(error)
            return

        def ended() -> None:
            if ticket.cancel():
                self._call.close(grpc.StatusCode.CANCELLED.name)

        if not self._rpc.add_callback(ended):  # it is over already
            ended()

    def finish(self, result: Answer | Exception) -> None:
        """Send what came of it."""
        code = grpc.StatusCode.OK
        response: bytes | None = None
        trailers: tuple[tuple[str, str], ...] = ()
        try:
            if not isinstance(result, Exception):
                with self._call.phase("encode"):
                    response = self._scoring.response(result, self._form)
        except Exception as error:
            result = error
        if isinstance(result, Exception):  # not raised again: a cycle with this frame
            code, self._call.error = status_of(result, self._call)
            trailers = TRAILERS.get(type(result), ())
            self._rpc.set_code(code)
            self._rpc.set_details(self._call.error)
        if response is None or self._call.has_own_id:  # else nobody asks: it costs 5 us to send
            trailers = (("x-request-id", self._call.request_id), *trailers)
            self._rpc.set_trailing_metadata(trailers)
        self._rpc.respond(response)
        self._call.close(code.name)


def status_of(error: Exception, call: Call) -> tuple[grpc.StatusCode, str]:
    """Code and message by the table; what is not in it is logged in full, answered in general."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind], str(error)[:_MESSAGE_CHARACTERS]
    return grpc.StatusCode.INTERNAL, call.explain(error)


def _text(value: str | bytes | None) -> str | None:
    return value if isinstance(value, str) else None
