"""RPCs answered by callback behave on the wire as those answered by a waiting thread."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from amiss_serving import grpc_calls
from amiss_serving.grpc_calls import Begin, Respond, RpcContext, callback_handler

METHOD = "/test.Service/Ask"
Ask = Callable[..., bytes]


@pytest.fixture(params=["callback", "waiting"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to answer; the second is for a grpcio whose functions we do not know."""
    if request.param == "waiting":
        monkeypatch.setattr(grpc_calls, "is_supported", lambda: False)


@contextmanager
def serving(begin: Begin) -> Iterator[tuple[grpc.Server, Ask]]:
    """A server on a free port, and what asks it."""
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = grpc.method_handlers_generic_handler(
        "test.Service", {"Ask": callback_handler(begin)}
    )
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield server, channel.unary_unary(METHOD)
    server.stop(0).wait()


def later(work: Callable[[], None]) -> None:
    threading.Thread(target=work).start()


def test_the_installed_grpcio_is_one_we_know() -> None:
    """The quick way is the one in use here; a new grpcio that breaks it shows up at once."""
    assert grpc_calls.is_supported()


@pytest.mark.usefixtures("way")
def test_a_response_may_come_from_another_thread() -> None:
    """Each of many requests at once gets its own response, and the metadata arrives."""

    def begin(request: bytes, context: RpcContext, respond: Respond) -> None:
        word = dict(context.invocation_metadata())["word"]
        later(lambda: respond(request + str(word).encode()))

    with serving(begin) as (_, ask), ThreadPoolExecutor(16) as callers:
        asked = [bytes([i]) for i in range(100)]
        answers = callers.map(lambda data: ask(data, metadata=(("word", "w"),), timeout=10), asked)
        assert list(answers) == [data + b"w" for data in asked]


@pytest.mark.usefixtures("way")
def test_an_error_carries_code_details_and_trailers() -> None:
    """What is set in the context before respond(None) is what the caller is told."""

    def begin(_: bytes, context: RpcContext, respond: Respond) -> None:
        context.set_trailing_metadata((("retry-after", "1"),))
        context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
        context.set_details("too full")
        later(lambda: respond(None))

    with serving(begin) as (_, ask), pytest.raises(grpc.RpcError) as caught:
        ask(b"x", timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "too full"
    assert dict(caught.value.trailing_metadata())["retry-after"] == "1"


@pytest.mark.usefixtures("way")
def test_a_caller_that_leaves_is_noticed_and_answering_it_is_harmless() -> None:
    """At the caller's deadline the callback is called; a response after that is dropped."""
    gone = threading.Event()
    kept: list[Respond] = []

    def begin(_: bytes, context: RpcContext, respond: Respond) -> None:
        assert 0 < context.time_remaining() < 1
        context.add_callback(gone.set)
        kept.append(respond)

    with serving(begin) as (_, ask):
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"x", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert gone.wait(5)
        kept.pop()(b"late")


@pytest.mark.usefixtures("way")
def test_a_server_that_stops_lets_rpcs_under_way_finish() -> None:
    """Within the grace an RPC that has begun is answered; the server has stopped after it."""
    begun, free = threading.Event(), threading.Event()

    def begin(_: bytes, __: RpcContext, respond: Respond) -> None:
        begun.set()
        later(lambda: (free.wait(5), respond(b"done")))

    with serving(begin) as (server, ask), ThreadPoolExecutor(1) as caller:
        answer = caller.submit(ask, b"x", timeout=10)
        assert begun.wait(5)
        stopped = server.stop(5)
        free.set()
        assert answer.result() == b"done"
        assert stopped.wait(5)


@pytest.mark.usefixtures("way")
def test_a_server_that_stops_at_once_cuts_off_what_is_under_way() -> None:
    """Without grace the caller is told, the server stops, and the late response is dropped."""
    begun = threading.Event()
    kept: list[Respond] = []

    def begin(_: bytes, __: RpcContext, respond: Respond) -> None:
        kept.append(respond)
        begun.set()

    with serving(begin) as (server, ask), ThreadPoolExecutor(1) as caller:
        answer = caller.submit(ask, b"x", timeout=10)
        assert begun.wait(5)
        assert server.stop(0).wait(5)
        assert isinstance(answer.exception(), grpc.RpcError)
        kept.pop()(b"late")
