"""LitServe: one worker, batches of up to 64 as they come."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import doors
from ..models import Model
from ..processes import answers, running, wait_until
from ..venvs import environment
from .base import FILES, HOST, ONNX_RUNTIME, Peer, Server, free_ports

BATCH_SIZE, BATCH_TIMEOUT_S = 32, 0.001


class LitServe(Peer):
    name = "LitServe"
    version = "0.2.19"

    def install(self, cache: Path) -> None:
        """LitServe and the model's runtime."""
        packages = [f"litserve=={self.version}", ONNX_RUNTIME]
        self._venv = environment(cache, "litserve", packages)

    @contextmanager
    def start(self, model: Model, scratch: Path) -> Iterator[Server]:
        (port,) = free_ports(1)
        command = [self._venv / "bin/python", FILES / "litserve_app.py", model.onnx, port]
        command += [BATCH_SIZE, BATCH_TIMEOUT_S]
        with running(command, log=scratch / "litserve.log", cwd=scratch) as tree:
            wait_until(lambda: answers(f"http://{HOST}:{port}/health"), tree)
            words = f"batch {BATCH_SIZE}, {BATCH_TIMEOUT_S * 1000:g} ms, 1 worker, 1 thread"
            yield Server(tree, (doors.litserve_http(f"{HOST}:{port}"),), prepare=lambda _: words)
