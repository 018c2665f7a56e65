"""What runs a bundle's graph, and the one place that knows which runtimes there are."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Literal

from amiss_export.bundle import ONNX, TORCHSCRIPT, Bundle
from amiss_export.errors import BadInput
from amiss_serving import onnx_runtime
from amiss_serving.devices import CPU, Device
from amiss_serving.onnx_runtime import OnnxRuntime, batch_size
from amiss_serving.runtime import Runtime

RuntimeKind = Literal["onnx", "torchscript", "torchserve"]


@dataclass(frozen=True)
class RuntimeOptions:
    """How graphs are run.

    kind: 'onnx' or 'torchscript'. device: 'auto' (CUDA when there is a device that works, else the
    CPU), 'cpu' or 'cuda:0'. threads: CPU threads inside one run. gpu_mem_limit_bytes: most that
    one session of ONNX Runtime may take of a CUDA device, and a bundle has two, its score alone
    and all of it, or two for each batch size if it convolves; None is no limit. provider_options:
    of its CUDA provider, as it spells them. warm_up_rows: batch sizes run once at load, for each
    set of outputs, beside the one row that every bundle is tried with. workers: processes of
    TorchServe for each bundle. on_restart(name, version): one of them died and was replaced.
    """

    kind: RuntimeKind = "onnx"
    device: str = "auto"
    threads: int = 1
    gpu_mem_limit_bytes: int | None = None
    provider_options: dict[str, str] = field(default_factory=dict)
    warm_up_rows: tuple[int, ...] = ()
    workers: int = 1
    on_restart: Callable[[str, int], None] | None = None


DEFAULTS = RuntimeOptions()


def open_runtime(bundle: Bundle, options: RuntimeOptions) -> Runtime:
    """The bundle's graph, ready to run.

    Raises BundleRefused for a graph that cannot be loaded, BadInput for options that do not go
    together with this machine or with each other.
    """
    own = dict(options.provider_options)
    if options.gpu_mem_limit_bytes is not None:
        own = {"gpu_mem_limit": str(options.gpu_mem_limit_bytes), **own}
    if options.kind == "onnx":
        return OnnxRuntime(
            bundle.read(ONNX),
            device=options.device,
            threads=options.threads,
            provider_options=own,
        )
    if own:
        raise BadInput(
            f"runtime {options.kind!r} takes no provider options, got {', '.join(own)}; they are "
            "ONNX Runtime's, for CUDA"
        )
    runtime: Runtime
    if options.kind == "torchscript":
        runtime = _torchscript().TorchScriptRuntime(
            bundle.read(TORCHSCRIPT), device=options.device, threads=options.threads
        )
    else:
        runtime = _torchserve().TorchServeRuntime(
            bundle,
            device=options.device,
            workers=options.workers,
            threads=options.threads,
            on_restart=options.on_restart,
        )
    return runtime


def choose_device(asked: str, kind: RuntimeKind = "onnx") -> Device:
    """The device for 'auto', 'cpu' or 'cuda:0'. Raises BadInput when it is not there."""
    if kind == "onnx":
        return onnx_runtime.choose_device(asked)
    module = _torchscript() if kind == "torchscript" else _torchserve()
    device: Device = module.choose_device(asked)
    return device


def spare_device_memory(kind: RuntimeKind) -> None:
    """For a process that serves, before its first graph: small workspaces for cuBLAS.

    Where nobody says less it takes 32 MiB and more for each session and thread on an H100: five
    detectors took 8.2 GB, with this 1.8 GB, at the same speed. PyTorch keeps what it chooses.
    """
    if kind == "onnx":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")


def warm_up_rows(device: Device, max_batch_rows: int) -> tuple[int, ...]:
    """Batch sizes to try at load: on CUDA those that batches are filled up to, or stay below."""
    if device.name == CPU:
        return ()
    sizes = [1]
    while sizes[-1] < max_batch_rows:
        sizes.append(batch_size(sizes[-1] + 1))
    return tuple(sizes)


def _torchscript() -> ModuleType:
    """The module that needs torch, which serving does without unless it is asked for."""
    try:
        from amiss_serving import torchscript  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise BadInput(
            f"runtime 'torchscript' needs {error.name}, which is not installed; pip install "
            "'amiss[torchscript]', or use runtime 'onnx'"
        ) from error
    return torchscript


def _torchserve() -> ModuleType:
    """The module that starts TorchServe, which serving does without unless it is asked for."""
    from amiss_serving.torchserve import runtime  # noqa: PLC0415

    return runtime
