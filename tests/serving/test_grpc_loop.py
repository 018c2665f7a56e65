"""The thread that RPCs come in on is replaced when it ends."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from amiss_serving.grpc_internals import is_supported
from amiss_serving.grpc_loop import RpcLoop
from amiss_serving.turn import Turn

pytestmark = pytest.mark.skipif(not is_supported(), reason="grpcio is not as we know it")


class Ending(Turn):
    """A turn that ends the thread of whoever takes it, once."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self.ended = False

    @property
    def is_due(self) -> bool:
        return not self.ended

    def run(self) -> None:
        self.ended = True
        raise SystemExit


def refused_with(port: int) -> grpc.StatusCode:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary("/no.Service/NoMethod")(b"", timeout=5)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    raise AssertionError("nobody serves this method")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant
def test_a_thread_that_ended_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """After the thread's end the next look at it begins another, which answers and says so."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    turn = Ending()
    loop = RpcLoop(server, lambda *_: None, turn)
    loop.start()
    loop._thread.join(5)
    assert turn.ended
    loop.relieve()
    assert "has ended; another takes over" in caplog.text
    assert refused_with(port) is grpc.StatusCode.UNIMPLEMENTED
    loop.relieve()
    assert caplog.text.count("another takes over") == 1
    server.stop(0).wait()
