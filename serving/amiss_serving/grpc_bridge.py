"""Servicers written for asyncio, behind grpcio's threaded server.

The threaded server answers what is hot several times as fast (`grpc_calls.py`); what is not runs on
the service's event loop, as its HTTP twin does, and no thread waits for it either.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import grpc
from google.protobuf.message import Message

from amiss_serving.grpc_calls import (
    Respond,
    RpcContext,
    RpcHandler,
    callback_handler,
    send,
    time_left_s,
)

_STREAM_REQUESTS = 64  # of one stream, read ahead
logger = logging.getLogger(__name__)


class Aborted(Exception):
    """The status of the RPC is set; nothing is left to do."""


class AsyncContext:
    """What a servicer for asyncio needs of its RPC, over the threaded server's context."""

    def __init__(
        self,
        context: RpcContext,
        loop: asyncio.AbstractEventLoop,
        respond: Respond,
    ) -> None:
        self._context, self._loop, self._send = context, loop, respond
        self.invocation_metadata = context.invocation_metadata
        self.set_trailing_metadata = context.set_trailing_metadata

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        return time_left_s(self._context)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        """End the RPC with a status."""
        self._context.set_code(code)
        self._context.set_details(details)
        raise Aborted

    async def write(self, message: Message) -> None:
        """Send one message of a stream; it returns once it is on its way to the caller."""
        on_its_way = self._loop.create_future()

        def settle() -> None:
            if not on_its_way.done():
                on_its_way.set_result(None)

        def sent() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(settle)

        data = message.SerializeToString()
        try:
            send(self._context, data, sent)
        except NotImplementedError:  # then a thread waits
            await self._loop.run_in_executor(None, self._send, data)
        else:
            await on_its_way


def unary(
    answer: Callable[[bytes, AsyncContext], Awaitable[Message]], loop: asyncio.AbstractEventLoop
) -> RpcHandler:
    """A unary RPC: `await answer(request, context)` gives the response to a request's bytes."""

    async def run(request: bytes, context: RpcContext, respond: Respond) -> None:
        response: bytes | None = None
        with _ending(context):
            answered = await answer(request, AsyncContext(context, loop, respond))
            response = answered.SerializeToString()
        respond(response)

    def begin(request: bytes, context: RpcContext, respond: Respond) -> None:
        running = asyncio.run_coroutine_threadsafe(run(request, context, respond), loop)

        def ended() -> None:
            running.cancel()

        if not context.add_callback(ended):  # it is over already
            ended()

    return callback_handler(begin)


def stream(
    answer: Callable[[AsyncIterator[bytes], AsyncContext], AsyncIterator[Message]],
    loop: asyncio.AbstractEventLoop,
) -> RpcHandler:
    """An RPC that streams: `answer(requests, context)` gives the responses to requests' bytes.

    One that takes a single request is, on the wire, a stream of one.
    """

    async def run(requests: AsyncIterator[bytes], context: RpcContext, respond: Respond) -> None:
        bridged = AsyncContext(context, loop, respond)
        with _ending(context):
            async for response in answer(requests, bridged):
                await bridged.write(response)
        respond(None)

    def begin(requests: Iterator[bytes], context: RpcContext, respond: Respond) -> None:
        received = _Requests(loop)
        running = asyncio.run_coroutine_threadsafe(run(received, context, respond), loop)

        def ended() -> None:
            running.cancel()
            received.stop()

        if not context.add_callback(ended):  # it is over already
            ended()
        threading.Thread(target=received.read, args=(requests,), daemon=True).start()

    begin.experimental_non_blocking = True  # type: ignore[attr-defined]  # where grpcio looks
    return grpc.stream_stream_rpc_method_handler(begin)


@contextmanager
def _ending(context: RpcContext) -> Iterator[None]:
    """Turns what a servicer raises into the status of its RPC."""
    try:
        yield
    except Aborted:  # it is set
        pass
    except Exception:
        logger.exception("a servicer failed")
        context.set_code(grpc.StatusCode.INTERNAL)
        context.set_details("internal error")


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
