"""What is asked of TorchServe's management port, and what its answers mean."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from amiss_serving.torchserve.management import Management, NoSuchModel, Unreachable, Worker


@dataclass
class FakePort:
    """A port that answers everything alike and remembers what it was asked."""

    status: int = 200
    body: str = ""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def fake() -> Iterator[FakePort]:
    fake = FakePort()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            fake.asked.append((self.command, self.path, self.headers["authorization"]))
            self.send_response(fake.status)
            self.end_headers()
            self.wfile.write(fake.body.encode())

        do_GET = do_PUT = answer  # noqa: N815  the names are http.server's

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


def described(*workers: dict[str, object]) -> str:
    return json.dumps([{"modelName": "a", "workers": workers}])


def test_workers_are_ready_by_their_status_alone(fake: FakePort) -> None:
    """UNLOADING, TorchServe's word for a dead worker, is not ready, whatever pid it shows."""
    fake.body = described(
        {"id": "9000", "status": "READY", "pid": 5},
        {"id": "9001", "status": "UNLOADING", "pid": 6},
    )
    assert Management(fake.port).workers("a b", "secret") == (
        Worker("9000", 5, is_ready=True),
        Worker("9001", 6, is_ready=False),
    )
    assert fake.asked == [("GET", "/models/a%20b", "Bearer secret")]


def test_workers_and_keys_are_asked_for_as_torchserve_wants_it(fake: FakePort) -> None:
    """Workers by PUT with both bounds, a key by GET with the API key."""
    management = Management(fake.port)
    management.scale("a", 2, "secret")
    management.renew("inference", "api")
    assert fake.asked == [
        ("PUT", "/models/a?min_worker=2&max_worker=2", "Bearer secret"),
        ("GET", "/token?type=inference", "Bearer api"),
    ]


def test_a_model_that_was_not_loaded_is_told_apart(fake: FakePort) -> None:
    """404 is no such model; 400, a wrong key, and a closed port are no answer."""
    fake.status, fake.body = 404, '{"message": "Model not found: a"}'
    with pytest.raises(NoSuchModel, match="Model not found: a"):
        Management(fake.port).workers("a", "")
    fake.status, fake.body = 400, '{"message": "Token Authorization failed"}'
    with pytest.raises(Unreachable, match="Token Authorization failed"):
        Management(fake.port).workers("a", "")
    with pytest.raises(Unreachable, match="does not answer"):
        Management(1).workers("a", "")


@pytest.mark.parametrize("body", ["", "{", "[]", '[{"workers": [{}]}]', "{}"])
def test_an_answer_that_makes_no_sense_is_no_answer(body: str, fake: FakePort) -> None:
    """Neither half an answer nor another one ends the thread that watches."""
    fake.body = body
    with pytest.raises(Unreachable, match="cannot be read"):
        Management(fake.port).workers("a", "")
