"""RPCs answered by callback behave on the wire as those answered by a waiting thread."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from amiss_serving import grpc_internals
from amiss_serving.grpc_calls import Begin, Rpc, waiting_handler
from amiss_serving.grpc_loop import RpcLoop
from amiss_serving.turn import Turn

METHOD = "/test.Service/Ask"
Ask = Callable[..., bytes]


@pytest.fixture(params=["callback", "waiting"])
def way(request: pytest.FixtureRequest) -> str:
    """Both ways to answer; the second is for a grpcio whose functions we do not know."""
    name: str = request.param
    return name


@contextmanager
def serving(begin: Begin, way: str) -> Iterator[tuple[grpc.Server, Ask, grpc.Channel]]:
    """A server on a free port, and what asks it."""
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {"Ask": waiting_handler(begin)} if way == "waiting" else {}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Service", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    unary = {METHOD.encode(): begin}
    loop = RpcLoop(server, lambda path, _: unary.get(path), Turn(time.monotonic))
    (server if way == "waiting" else loop).start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield server, channel.unary_unary(METHOD), channel
    assert server.stop(0).wait(10)


def later(work: Callable[[], None]) -> None:
    threading.Thread(target=work).start()


def test_the_installed_grpcio_is_one_we_know() -> None:
    """The quick way is the one in use here; a new grpcio that breaks it shows up at once."""
    assert grpc_internals.is_supported()


def test_a_response_may_come_from_another_thread(way: str) -> None:
    """Each of many requests at once gets its own response, and the metadata arrives."""

    def begin(request: bytes, rpc: Rpc) -> None:
        word = dict(rpc.invocation_metadata())["word"]
        later(lambda: rpc.respond(request + str(word).encode()))

    with serving(begin, way) as (_, ask, _), ThreadPoolExecutor(16) as callers:
        asked = [bytes([i]) for i in range(100)]
        answers = callers.map(lambda data: ask(data, metadata=(("word", "w"),), timeout=10), asked)
        assert list(answers) == [data + b"w" for data in asked]


def test_an_error_carries_code_details_and_trailers(way: str) -> None:
    """What is set in the context before rpc.respond(None) is what the caller is told."""

    def begin(_: bytes, rpc: Rpc) -> None:
        rpc.set_trailing_metadata((("retry-after", "1"),))
        rpc.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
        rpc.set_details("too full")
        later(lambda: rpc.respond(None))

    with serving(begin, way) as (_, ask, _), pytest.raises(grpc.RpcError) as caught:
        ask(b"x", timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "too full"
    assert dict(caught.value.trailing_metadata())["retry-after"] == "1"


def test_a_caller_that_leaves_is_noticed_and_answering_it_is_harmless(way: str) -> None:
    """At the caller's deadline the callback is called; a response after that is dropped."""
    gone = threading.Event()
    kept: list[Rpc] = []

    def begin(_: bytes, rpc: Rpc) -> None:
        assert 0 < (rpc.time_left_s() or 0) < 1
        rpc.add_callback(gone.set)
        kept.append(rpc)

    with serving(begin, way) as (_, ask, _):
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"x", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert gone.wait(5)
        kept.pop().respond(b"late")


def test_a_server_that_stops_lets_rpcs_under_way_finish(way: str) -> None:
    """Within the grace an RPC that has begun is answered; the server has stopped after it."""
    begun, free = threading.Event(), threading.Event()

    def begin(_: bytes, rpc: Rpc) -> None:
        begun.set()
        later(lambda: (free.wait(5), rpc.respond(b"done")))

    with serving(begin, way) as (server, ask, _), ThreadPoolExecutor(1) as caller:
        answer = caller.submit(ask, b"x", timeout=10)
        assert begun.wait(5)
        stopped = server.stop(5)
        free.set()
        assert answer.result() == b"done"
        assert stopped.wait(5)


def test_a_server_that_stops_at_once_cuts_off_what_is_under_way(way: str) -> None:
    """Without grace the caller is told, the server stops, and the late response is dropped."""
    begun = threading.Event()
    kept: list[Rpc] = []

    def begin(_: bytes, rpc: Rpc) -> None:
        kept.append(rpc)
        begun.set()

    with serving(begin, way) as (server, ask, _), ThreadPoolExecutor(1) as caller:
        answer = caller.submit(ask, b"x", timeout=10)
        assert begun.wait(5)
        assert server.stop(0).wait(5)
        assert isinstance(answer.exception(), grpc.RpcError)
        kept.pop().respond(b"late")


def test_a_handler_that_breaks_ends_its_own_rpc_alone(way: str) -> None:
    """Its caller is told, and the next one is answered."""

    def begin(request: bytes, rpc: Rpc) -> None:
        if request == b"bad":
            raise MemoryError
        rpc.respond(request)

    with serving(begin, way) as (_, ask, _):
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"bad", timeout=10)
        assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
        assert ask(b"good", timeout=10) == b"good"


def test_a_caller_that_sends_no_message_is_told(way: str) -> None:
    """A stream that ends before its first request is UNIMPLEMENTED, as grpcio itself has it."""
    with serving(lambda *_: pytest.fail("nothing to begin"), way) as (_, _, channel):
        nothing = channel.stream_unary(METHOD)
        with pytest.raises(grpc.RpcError) as caught:
            nothing(iter(()), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_no_deadline_is_none(way: str) -> None:
    """A caller without a deadline leaves no time at all, rather than a few hundred years."""
    left: list[float | None] = []

    def begin(request: bytes, rpc: Rpc) -> None:
        left.append(rpc.time_left_s())
        rpc.respond(request)

    with serving(begin, way) as (_, ask, _):
        ask(b"x")
        ask(b"x", timeout=50)
    assert left[0] is None
    assert left[1] is not None
    assert 40 < left[1] < 60
