"""Triton: the tritonserver inside nvidia-pytriton's wheel, its python backend, dynamic batching."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import doors
from ..models import NAME, Model
from ..processes import answers, running, wait_until
from ..venvs import environment, site_packages
from .base import FILES, HOST, ONNX_RUNTIME, Peer, Server, free_ports, samples

CONFIG = f"""name: "{NAME}"
backend: "python"
max_batch_size: 256
input [{{ name: "images" data_type: TYPE_UINT8 dims: [1, 28, 28] }}]
output [{{ name: "score" data_type: TYPE_FP32 dims: [1], reshape: {{ shape: [] }} }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
dynamic_batching {{ }}
"""
# Callers that h2load leaves behind when its time is up count as cancelled.
FAILED = r'nv_inference_request_failure\{(?!.*"CANCELED")'


class Triton(Peer):
    name = "Triton"
    version = "2.51.0 (nvidia-pytriton 0.7.0)"

    def install(self, cache: Path) -> None:
        """The wheel, and its python backend completed by the stub for this Python."""
        self._venv = environment(cache, "triton", ["nvidia-pytriton==0.7.0", ONNX_RUNTIME])
        self._home = site_packages(self._venv) / "pytriton" / "tritonserver"
        self._backends = self._venv / "backends"
        if not self._backends.exists():
            shutil.copytree(self._home / "backends", self._backends)
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            stub = self._home / "python_backend_stubs" / python / "triton_python_backend_stub"
            shutil.copy(stub, self._backends / "python")

    @contextmanager
    def start(self, model: Model, scratch: Path) -> Iterator[Server]:
        http, grpc, metrics = free_ports(3)
        command = [self._home / "bin" / "tritonserver", "--model-repository", scratch / "triton"]
        command += ["--backend-directory", self._backends, "--log-verbose", 0]
        command += ["--http-address", HOST, "--http-port", http]
        command += ["--grpc-address", HOST, "--grpc-port", grpc]
        command += ["--metrics-address", HOST, "--metrics-port", metrics]
        self._write_repository(model, scratch / "triton")
        log, env = scratch / "triton.log", {"LD_LIBRARY_PATH": self._libraries()}
        with running(command, log=log, cwd=scratch, env=env) as tree:
            wait_until(lambda: answers(f"http://{HOST}:{http}/v2/health/ready"), tree)
            page = f"http://{HOST}:{metrics}/metrics"
            yield Server(
                tree,
                (doors.oip_grpc(f"{HOST}:{grpc}"), doors.oip_http(f"{HOST}:{http}")),
                prepare=lambda _: "python backend, dynamic batching, 1 instance, 1 thread",
                failures=lambda: samples(page, FAILED),
            )

    def _write_repository(self, model: Model, repository: Path) -> None:
        folder = repository / NAME / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "config.pbtxt").write_text(CONFIG)
        shutil.copy(model.onnx, folder)
        shutil.copy(FILES / "triton_model.py", folder / "model.py")
        (folder / "site_packages.txt").write_text(str(site_packages(self._venv)))

    def _libraries(self) -> str:
        ours = site_packages(self._venv) / "nvidia_pytriton.libs"
        folders = [str(ours), str(sysconfig.get_config_var("LIBDIR"))]
        return ":".join([*folders, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
