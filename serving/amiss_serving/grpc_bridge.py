"""Servicers written for asyncio, behind grpcio's threaded server.

The threaded server answers what is hot several times as fast (`grpc_calls.py`); what is not runs on
the service's event loop, as its HTTP twin does, and no thread waits for it either.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from google.protobuf.message import Message

from amiss_serving.grpc_calls import Begin, ContextRpc, Rpc, RpcHandler
from amiss_serving.grpc_internals import cygrpc, is_supported
from amiss_serving.grpc_internals import server as grpcio

_STREAM_REQUESTS = 64  # of one stream, read ahead
logger = logging.getLogger(__name__)


class Aborted(Exception):
    """The status of the RPC is set; nothing is left to do."""


class AsyncContext:
    """What a servicer for asyncio needs of its RPC."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self.invocation_metadata = rpc.invocation_metadata
        self.set_trailing_metadata = rpc.set_trailing_metadata
        self.time_remaining = rpc.time_left_s

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        """End the RPC with a status."""
        self._rpc.set_code(code)
        self._rpc.set_details(details)
        raise Aborted


class StreamContext(AsyncContext):
    """That of an RPC whose responses are a stream."""

    def __init__(
        self, rpc: Rpc, context: grpc.ServicerContext, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(rpc)
        self._context, self._loop = context, loop

    async def write(self, message: Message) -> None:
        """Send one message; it returns once it is on its way to the caller."""
        on_its_way = self._loop.create_future()

        def settle() -> None:
            if not on_its_way.done():
                on_its_way.set_result(None)

        def sent() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(settle)

        data = message.SerializeToString()
        if is_supported():
            _send(self._context, data, sent)
            await on_its_way
        else:  # then a thread waits
            await self._loop.run_in_executor(None, self._rpc.respond, data)


def unary(
    answer: Callable[[bytes, AsyncContext], Awaitable[Message]], loop: asyncio.AbstractEventLoop
) -> Begin:
    """A unary RPC: `await answer(request, context)` gives the response to a request's bytes."""

    async def run(request: bytes, rpc: Rpc) -> None:
        response: bytes | None = None
        with _ending(rpc):
            answered = await answer(request, AsyncContext(rpc))
            response = answered.SerializeToString()
        rpc.respond(response)

    def begin(request: bytes, rpc: Rpc) -> None:
        running = asyncio.run_coroutine_threadsafe(run(request, rpc), loop)

        def ended() -> None:
            running.cancel()

        if not rpc.add_callback(ended):  # it is over already
            ended()

    return begin


def stream(
    answer: Callable[[AsyncIterator[bytes], StreamContext], AsyncIterator[Message]],
    loop: asyncio.AbstractEventLoop,
) -> RpcHandler:
    """An RPC that streams: `answer(requests, context)` gives the responses to requests' bytes.

    One that takes a single request is, on the wire, a stream of one.
    """

    async def run(requests: AsyncIterator[bytes], rpc: Rpc, context: grpc.ServicerContext) -> None:
        bridged = StreamContext(rpc, context, loop)
        with _ending(rpc):
            async for response in answer(requests, bridged):
                await bridged.write(response)
        rpc.respond(None)

    def begin(
        requests: Iterator[bytes],
        context: grpc.ServicerContext,
        respond: Callable[[bytes | None], None],
    ) -> None:
        received = _Requests(loop)
        rpc = ContextRpc(context, respond)
        running = asyncio.run_coroutine_threadsafe(run(received, rpc, context), loop)

        def ended() -> None:
            running.cancel()
            received.stop()

        if not rpc.add_callback(ended):  # it is over already
            ended()
        threading.Thread(target=received.read, args=(requests,), daemon=True).start()

    begin.experimental_non_blocking = True  # type: ignore[attr-defined]  # where grpcio looks
    return grpc.stream_stream_rpc_method_handler(begin)


def _send(context: grpc.ServicerContext, message: bytes, sent: Callable[[], None]) -> None:
    """Send one message of a stream; `sent` is called, from any thread, when it is on its way.

    It is also called when the caller has gone.
    """
    state: Any = context._state  # type: ignore[attr-defined]
    call: Any = context._rpc_event.call  # type: ignore[attr-defined]

    def done(_: Any) -> Any:
        with state.condition:
            finished = grpcio._possibly_finish_call(state, grpcio._SEND_MESSAGE_TOKEN)
        sent()
        return finished

    with state.condition:
        is_active = grpcio._is_rpc_state_active(state)
        if is_active:
            operations = [cygrpc.SendMessageOperation(message, 0)]
            if state.initial_metadata_allowed:
                operations.insert(0, grpcio._get_initial_metadata_operation(state, None))
                state.initial_metadata_allowed = False
            call.start_server_batch(operations, done)
            state.due.add(grpcio._SEND_MESSAGE_TOKEN)
    if not is_active:
        sent()


@contextmanager
def _ending(rpc: Rpc) -> Iterator[None]:
    """Turns what a servicer raises into the status of its RPC."""
    try:
        yield
    except Aborted:  # it is set
        pass
    except Exception:
        logger.exception("a servicer failed")
        rpc.set_code(grpc.StatusCode.INTERNAL)
        rpc.set_details("internal error")


class _Requests(AsyncIterator[bytes]):
    """The requests of one stream, read by a thread of its own, a few ahead at most."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(_STREAM_REQUESTS)
        self._is_over = False

    def read(self, requests: Iterator[bytes]) -> None:
        """Hand over all requests, then None."""
        with suppress(Exception):  # grpcio's way to say that the caller has gone, or the loop's
            for request in requests:
                self._room.acquire()
                if self._is_over:
                    return
                self._loop.call_soon_threadsafe(self._queue.put_nowait, request)
            self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    def stop(self) -> None:
        """End the reading: the RPC is over."""
        self._is_over = True
        self._room.release()

    async def __anext__(self) -> bytes:
        request = await self._queue.get()
        self._room.release()
        if request is None:
            raise StopAsyncIteration
        return request
