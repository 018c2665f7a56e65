"""What runs a bundle's graph. ONNX Runtime on a CUDA device when there is one, else on the CPU."""

import ctypes
import re
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from amiss_export.errors import BadInput, BundleRefused
from amiss_export.onnx_runtime import onnxruntime
from amiss_serving.graphs import identity_graph, keep_outputs, parse_graph

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_DEVICE = re.compile(r"cpu|cuda:([0-9])")
_FATAL_ONLY = 4  # its errors reach us as exceptions; its own lines are not JSON


class Runtime(Protocol):
    """A loaded graph. device: 'cpu' or 'cuda:0'."""

    device: str

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """The named outputs for a batch x (n, ...), each (n, ...); the others are not computed."""


@dataclass(frozen=True)
class Device:
    """Where models run: name 'cpu' or 'cuda:0', and why, for the one log line."""

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"device {self.name} ({self.reason})" if self.reason else f"device {self.name}"


class OnnxRuntime(Runtime):
    """A graph in ONNX Runtime, loaded from bytes only: it can read no other file."""

    def __init__(self, model: bytes, *, device: str = "auto", threads: int = 1) -> None:
        """Raises BundleRefused for a graph that is unsafe or cannot be loaded, BadInput for a
        device that is not there."""
        parse_graph(model)
        self.device = choose_device(device).name
        self._model = model
        self._threads = threads
        self._whole = _open(model, device=self.device, threads=threads)
        self._sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        session = self._sessions.get(outputs)
        if session is None:
            session = self._sessions[outputs] = self._session(outputs)
        return dict(zip(outputs, session.run(list(outputs), {"x": x}), strict=True))

    def _session(self, outputs: tuple[str, ...]) -> onnxruntime.InferenceSession:
        """A session that computes only what these outputs need; the whole one if that is all."""
        whole = parse_graph(self._model)
        part = keep_outputs(whole, outputs)
        if len(part.graph.node) == len(whole.graph.node):
            return self._whole
        return _open(part.SerializeToString(), device=self.device, threads=self._threads)


def choose_device(asked: str) -> Device:
    """The device for 'auto', 'cpu' or 'cuda:0'. Raises BadInput when it is not there."""
    if asked == "auto":
        return _best_device()
    match = _DEVICE.fullmatch(asked)
    if match is None:
        raise BadInput(f"device must be auto, cpu or cuda:0, got {asked!r}")
    if asked == "cpu":
        return Device("cpu")
    there = _cuda_device_count()
    if int(match[1]) >= there:
        raise BadInput(f"device {asked!r} asked for, but there are {there} CUDA devices; use auto")
    return Device(asked)


def _best_device() -> Device:
    if _cuda_device_count() == 0:
        return Device("cpu", "no CUDA device")
    try:  # a driver and a device are not yet CUDA and cuDNN libraries of the right version
        _open(identity_graph().SerializeToString(), device="cuda:0", threads=1)
    except BadInput:
        return Device("cpu", "a CUDA device, but ONNX Runtime cannot use it")
    return Device("cuda:0")


def _open(model: bytes, *, device: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.enable_mem_pattern = False  # patterns are planned for one batch size; ours vary
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [CPU]
    if device != "cpu":
        onnxruntime.preload_dlls()
        providers.insert(0, (CUDA, _cuda_options(device)))
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime has no common base class
        raise BundleRefused(f"ONNX Runtime cannot load model.onnx: {error}") from error
    if device != "cpu" and CUDA not in session.get_providers():
        raise BadInput(
            f"device {device!r} asked for, but ONNX Runtime fell back to the CPU; install the "
            "CUDA and cuDNN libraries it needs (pip install 'onnxruntime-gpu[cuda,cudnn]')"
        )
    return session


def _cuda_options(device: str) -> dict[str, str]:
    return {
        "device_id": device.removeprefix("cuda:"),
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles and never shrinks
        "cudnn_conv_algo_search": "HEURISTIC",  # the default tries all for every new batch size
        "use_tf32": "0",  # ten bits of mantissa would move scores beyond the parity we promise
    }


def _cuda_device_count() -> int:
    """Devices that both the driver and this ONNX Runtime build can see."""
    if CUDA not in onnxruntime.get_available_providers():
        return 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
