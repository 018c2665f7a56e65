"""A bundle's graph in ONNX Runtime: on a CUDA device when there is one, else on the CPU."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from amiss_export.errors import BadInput, BundleRefused
from amiss_export.onnx_runtime import onnxruntime
from amiss_serving.devices import CPU, Device, driver_device_count, pick_device
from amiss_serving.graphs import has_convolutions, identity_graph, keep_outputs, parse_graph
from amiss_serving.runtime import Runtime

CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"
NONE: Mapping[str, str] = MappingProxyType({})
ANY_SIZE = 0
_STEP = 4  # from one batch size to the next, see batch_size
_FATAL_ONLY = 4  # its errors reach us as exceptions; its own lines are not JSON

onnxruntime.set_default_logger_severity(_FATAL_ONLY)


class OnnxRuntime(Runtime):
    """A graph in ONNX Runtime, loaded from bytes only: it can read no other file.

    Any number of threads may run it at a time; each gets the answers to its own rows. On a CUDA
    device convolutions are run in a few batch sizes only, each in a session of its own: a session
    makes its cuDNN plans anew for every batch of another size than the one before.
    """

    def __init__(
        self,
        model: bytes,
        *,
        device: str = "auto",
        threads: int = 1,
        provider_options: Mapping[str, str] = NONE,
    ) -> None:
        """provider_options: of the CUDA provider, over ours; needs a CUDA device.

        Raises BundleRefused for a graph that is unsafe or cannot be loaded, BadInput for a device
        that is not there or options that ONNX Runtime does not take.
        """
        graph = parse_graph(model)
        self.device = choose_device(device).name
        if provider_options:
            _check_options(self.device, provider_options)
        self._model = model
        self._threads = threads
        self._provider_options = provider_options
        self._few_sizes = wants_few_sizes(self.device, graph)
        self._whole = self._open(model)
        self._sessions: dict[tuple[tuple[str, ...], int], onnxruntime.InferenceSession] = {}

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """The named outputs for a batch x (n, ...), each (n, ...); the others are not computed."""
        size = batch_size(len(x)) if self._few_sizes else ANY_SIZE
        session = self._sessions.get((outputs, size))
        if session is None:  # two threads may both make it; one of the two is kept
            session = self._sessions[outputs, size] = self._session(outputs, size)
        if size in (ANY_SIZE, len(x)):
            return dict(zip(outputs, session.run(list(outputs), {"x": x}), strict=True))
        values = session.run(list(outputs), {"x": filled_up(x, size)})
        return {name: value[: len(x)] for name, value in zip(outputs, values, strict=True)}

    def _session(self, outputs: tuple[str, ...], size: int) -> onnxruntime.InferenceSession:
        """A session that computes only what these outputs need; the whole one if that is all and
        no other size is run in it."""
        whole = parse_graph(self._model)
        part = keep_outputs(whole, outputs)
        if len(part.graph.node) == len(whole.graph.node) and size in (ANY_SIZE, 1):
            return self._whole
        return self._open(part.SerializeToString())

    def _open(self, model: bytes) -> onnxruntime.InferenceSession:
        try:
            session = _open(
                model,
                device=self.device,
                threads=self._threads,
                provider_options=self._provider_options,
            )
        except Exception as error:  # ONNX Runtime has no common base class
            raise BundleRefused(f"ONNX Runtime cannot load model.onnx: {error}") from error
        if not _is_on(session, self.device):
            raise BadInput(
                f"device {self.device!r} asked for, but ONNX Runtime fell back to the CPU; install "
                "the CUDA and cuDNN libraries it needs (pip install 'onnxruntime-gpu[cuda,cudnn]')"
            )
        return session


def wants_few_sizes(device: str, graph: onnx.ModelProto) -> bool:
    """Whether batches are better filled up than run as they come: convolutions on CUDA are."""
    return device != CPU and has_convolutions(graph)


def batch_size(rows: int) -> int:
    """Rows that a batch is filled up to where few sizes are run: 1, 4, 16, 64, 256, ..."""
    size = 1
    while size < rows:
        size *= _STEP
    return size


def filled_up(x: NDArray[Any], size: int) -> NDArray[Any]:
    """The rows of x (n, ...) and zeros after them, (size, ...)."""
    batch = np.zeros((size, *x.shape[1:]), x.dtype)
    batch[: len(x)] = x
    return batch


def choose_device(asked: str) -> Device:
    """The device for 'auto', 'cpu' or 'cuda:0'. Raises BadInput when it is not there."""
    return pick_device(asked, there=_device_count, works=_can_use_cuda)


def cuda_options(device: str, own: Mapping[str, str] = NONE) -> dict[str, str]:
    """Options of the CUDA provider for 'cuda:0': ours, then the operator's own over them."""
    return {
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles and never shrinks
        "cudnn_conv_algo_search": "HEURISTIC",  # the default tries all for every new batch size
        "use_tf32": "0",  # ten bits of mantissa would move scores beyond the parity we promise
        **own,
        "device_id": device.removeprefix("cuda:"),
    }


def _open(
    model: bytes, *, device: str, threads: int = 1, provider_options: Mapping[str, str] = NONE
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.enable_mem_pattern = False  # patterns are planned for one batch size; ours vary
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [CPU_PROVIDER]
    if device != CPU:
        onnxruntime.preload_dlls()
        providers.insert(0, (CUDA_PROVIDER, cuda_options(device, provider_options)))
    # Its fallback prints to stdout and then swaps the session under the threads that run it.
    return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)


def _is_on(session: onnxruntime.InferenceSession, device: str) -> bool:
    return device == CPU or CUDA_PROVIDER in session.get_providers()


def _check_options(device: str, provider_options: Mapping[str, str]) -> None:
    """Nothing, when ONNX Runtime takes them with the smallest graph there is."""
    named = ", ".join(f"{key}={value}" for key, value in provider_options.items())
    if device == CPU:
        raise BadInput(
            f"provider options are for CUDA and the device is the CPU, got {named}; leave them "
            "out, or name a device with --device cuda:0"
        )
    if "device_id" in provider_options:
        raise BadInput(f"provider option device_id is chosen by --device, here {device!r}")
    try:
        _open(
            identity_graph().SerializeToString(), device=device, provider_options=provider_options
        )
    except Exception as error:  # ONNX Runtime has no common base class
        raise BadInput(f"ONNX Runtime does not take the options {named}: {error}") from error


def _can_use_cuda() -> bool:
    try:
        return _is_on(_open(identity_graph().SerializeToString(), device="cuda:0"), "cuda:0")
    except Exception:  # ONNX Runtime has no common base class
        return False


def _device_count() -> int:
    """Devices that both the driver and this ONNX Runtime build can see."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return 0
    return driver_device_count()
