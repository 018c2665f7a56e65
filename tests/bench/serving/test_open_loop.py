"""Arrivals at random, asked for over HTTP/1.1 and HTTP/2 of servers made for the purpose."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from bench.serving import http1
from bench.serving.doors import Answer, Door, Request, frame
from bench.serving.http1 import body_size
from bench.serving.open_loop import open_loop, poisson

BODY = bytes(range(256)) * 100  # more than one HTTP/2 frame
METHOD = "/bench.Echo/Size"


def test_gaps_are_exponential() -> None:
    """Mean and deviation of the gaps are both 1 / rate, as only a Poisson process has it."""
    gaps = np.diff(poisson(1000, seconds=20, seed=0))
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(1e-3, rel=0.03)


def test_due_times_lie_within_the_window() -> None:
    """Arrivals come in order, fill the window and end before it does."""
    due_s = poisson(100, seconds=3, seed=1)
    assert (np.diff(due_s) > 0).all()
    assert 2.8 < due_s[-1] < 3


def test_an_answer_ends_where_its_length_says() -> None:
    """Whatever the letters' case; before its last byte there is no answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    assert body_size(head[:-1]) is None
    assert body_size(head + b"ab") is None
    assert body_size(head + b"abc") == 3


def test_every_request_is_answered_over_http1() -> None:
    """All that were due come back good, and wait no longer than the server takes."""
    with _http1_server(delay_s=0.005) as port:
        window = open_loop(_door("HTTP", port), _request(), _due(200), warm_up_s=0)
    assert (window.answered, window.failed) == (200, 0)
    assert window.answer_bytes == len("[1.0]")
    assert window.latency_ms.min() >= 5


def test_requests_wait_when_no_more_connections_may_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All are answered on eight connections, and their wait counts as latency."""
    monkeypatch.setattr(http1, "MOST_CONNECTIONS", 8)
    with _http1_server(delay_s=0.02) as port:
        window = open_loop(_door("HTTP", port), _request(), np.zeros(80), warm_up_s=0)
    assert (window.answered, window.failed) == (80, 0)
    assert window.latency_ms.max() >= 10 * 20


def test_every_request_is_answered_over_http2() -> None:
    """A real gRPC server takes the frames, larger than one and more than a window, for requests."""
    with _grpc_server() as port:
        window = open_loop(_door("gRPC", port), _request(), _due(200), warm_up_s=0)
    assert (window.answered, window.failed) == (200, 0)
    assert window.answer_bytes == len(frame(str(len(BODY)).encode()))


def test_an_error_over_grpc_counts_as_failed() -> None:
    """HTTP says 200 and the status in the trailers says no; only the lack of a body tells."""
    with _grpc_server() as port:
        refused = Request(_request().headers, frame(b"refuse me"))
        with pytest.raises(RuntimeError, match="expected answers, got none"):
            open_loop(_door("gRPC", port), refused, _due(5), warm_up_s=0)


def test_warm_up_is_not_counted() -> None:
    """Latencies are those of requests due after it, the answered are all of them."""
    with _http1_server(delay_s=0) as port:
        window = open_loop(_door("HTTP", port), _request(), _due(100), warm_up_s=0.1)
    assert window.answered == 100
    assert len(window.latency_ms) == 50


def _due(n: int) -> np.ndarray:
    """One request every two milliseconds."""
    return np.arange(n) * 0.002


def _request() -> Request:
    return Request({"content-type": "application/grpc", "te": "trailers"}, frame(BODY))


def _door(name: str, port: int) -> Door:
    def unused(_: object) -> Answer:
        raise NotImplementedError

    return Door(name, f"http://127.0.0.1:{port}{METHOD}", unused, unused)  # type: ignore[arg-type]


@contextmanager
def _grpc_server() -> Iterator[int]:
    """The port of a server that answers the length of what it was sent."""

    def size(message: bytes, context: grpc.ServicerContext) -> bytes:
        if message == b"refuse me":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        return str(len(message)).encode()

    service, _, method = METHOD[1:].partition("/")
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        method: grpc.unary_unary_rpc_method_handler(size)
    }
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextmanager
def _http1_server(*, delay_s: float) -> Iterator[int]:
    """The port of a server that answers [1.0] after a delay, on an event loop of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                await asyncio.sleep(delay_s)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1.0]")
        except asyncio.IncompleteReadError:
            writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
