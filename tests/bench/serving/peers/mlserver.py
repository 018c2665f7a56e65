"""MLServer: a custom runtime in the server's own process, its adaptive batching on."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import doors
from ..models import NAME, Model
from ..processes import answers, running, wait_until
from ..venvs import environment
from .base import FILES, HOST, ONNX_RUNTIME, Peer, Server, free_ports

BATCH_SIZE, BATCH_TIME_S = 64, 0.001


class MLServer(Peer):
    name = "MLServer"
    version = "1.7.1"

    def install(self, cache: Path) -> None:
        """MLServer and the model's runtime."""
        packages = [f"mlserver=={self.version}", ONNX_RUNTIME]
        self._venv = environment(cache, "mlserver", packages)

    @contextmanager
    def start(self, model: Model, scratch: Path) -> Iterator[Server]:
        http, grpc, metrics = free_ports(3)
        folder = scratch / "mlserver"
        folder.mkdir(exist_ok=True)
        shutil.copy(FILES / "mlserver_model.py", folder)
        settings = {
            "host": HOST,
            "http_port": http,
            "grpc_port": grpc,
            "metrics_port": metrics,
            "parallel_workers": 0,  # in process, without the hop to a worker of its own
            "debug": False,
        }
        batching = {"max_batch_size": BATCH_SIZE, "max_batch_time": BATCH_TIME_S}
        of_model = {
            "name": NAME,
            "implementation": "mlserver_model.Scorer",
            "parameters": {"uri": str(model.onnx)},
            **batching,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(of_model))
        command = [self._venv / "bin/mlserver", "start", folder]
        with running(command, log=scratch / "mlserver.log", cwd=folder) as tree:
            wait_until(lambda: answers(f"http://{HOST}:{http}/v2/models/{NAME}/ready"), tree)
            words = f"in process, batch {BATCH_SIZE}, {BATCH_TIME_S * 1000:g} ms, 1 thread"
            yield Server(
                tree,
                (doors.oip_grpc(f"{HOST}:{grpc}"), doors.oip_json(f"{HOST}:{http}")),
                prepare=lambda _: words,
            )
