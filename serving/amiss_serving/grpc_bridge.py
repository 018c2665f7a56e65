"""Servicers written for asyncio, behind grpcio's threaded server.

The threaded server answers what is hot several times as fast (`grpc_calls.py`); what is not runs on
the service's event loop, as its HTTP twin does, and no thread waits for it either.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress

import grpc
from google.protobuf.message import Message

from amiss_serving.grpc_calls import Respond, RpcContext, RpcHandler, callback_handler

_STREAM_REQUESTS = 64  # of one stream, read ahead


class Aborted(Exception):
    """The status of the RPC is set; nothing is left to do."""


class AsyncContext:
    """What a servicer for asyncio needs of its RPC, over the threaded server's context."""

    def __init__(
        self, context: RpcContext, loop: asyncio.AbstractEventLoop, send: Respond | None = None
    ) -> None:
        self._context, self._loop, self._send = context, loop, send
        self.invocation_metadata = context.invocation_metadata
        self.time_remaining = context.time_remaining
        self.set_trailing_metadata = context.set_trailing_metadata

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        """End the RPC with a status."""
        self._context.set_code(code)
        self._context.set_details(details)
        raise Aborted

    async def write(self, message: Message) -> None:
        """Send one message of a stream; it returns once it is on its way to the caller."""
        if self._send is not None:
            await self._loop.run_in_executor(None, self._send, message.SerializeToString())


def unary(
    answer: Callable[[bytes, AsyncContext], Awaitable[Message]], loop: asyncio.AbstractEventLoop
) -> RpcHandler:
    """A unary RPC: `await answer(request, context)` gives the response to a request's bytes."""

    async def run(request: bytes, context: RpcContext, respond: Respond) -> None:
        try:
            response = await answer(request, AsyncContext(context, loop))
        except Aborted:
            respond(None)
        else:
            respond(response.SerializeToString())

    def begin(request: bytes, context: RpcContext, respond: Respond) -> None:
        running = asyncio.run_coroutine_threadsafe(run(request, context, respond), loop)
        context.add_callback(lambda: _cancel(running))

    return callback_handler(begin)


def stream(
    answer: Callable[[AsyncIterator[bytes], AsyncContext], AsyncIterator[Message]],
    loop: asyncio.AbstractEventLoop,
) -> RpcHandler:
    """An RPC that streams: `answer(requests, context)` gives the responses to requests' bytes.

    One that takes a single request is, on the wire, a stream of one.
    """

    async def run(requests: AsyncIterator[bytes], context: AsyncContext, send: Respond) -> None:
        with suppress(Aborted):
            async for response in answer(requests, context):
                await context.write(response)
        await loop.run_in_executor(None, send, None)

    def begin(requests: Iterator[bytes], context: RpcContext, send: Respond) -> None:
        received = _Requests(loop)
        bridged = AsyncContext(context, loop, send)
        running = asyncio.run_coroutine_threadsafe(run(received, bridged, send), loop)
        context.add_callback(lambda: _cancel(running))
        context.add_callback(received.stop)
        threading.Thread(target=received.read, args=(requests,), daemon=True).start()

    begin.experimental_non_blocking = True  # type: ignore[attr-defined]  # where grpcio looks
    return grpc.stream_stream_rpc_method_handler(begin)


def _cancel(running: "Future[None]") -> None:
    running.cancel()


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
