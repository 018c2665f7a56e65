"""A bundle's graph in TorchScript, in this process. The one file in serving that imports torch."""

import io
import os
import warnings
from typing import Any

# Ten bits of mantissa would move scores beyond the parity we promise, and traced convolutions carry
# torch's permission for them in the file. cuBLAS and cuDNN obey this before anything else.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

import numpy as np
import torch
from numpy.typing import NDArray

from amiss_export.errors import BundleRefused
from amiss_serving.devices import Device, pick_device
from amiss_serving.runtime import Runtime

OUTPUTS = ("score", "reconstruction")  # what the graph returns, in this order


class TorchScriptRuntime(Runtime):
    """A graph in TorchScript, loaded from bytes only. It computes every output, asked for or not.

    Any number of threads may run it at a time; each gets the answers to its own rows.
    """

    def __init__(self, model: bytes, *, device: str = "auto", threads: int = 1) -> None:
        """Raises BundleRefused for bytes torch cannot load, BadInput for a device that is not
        there. threads: torch has one setting for the whole process; the last one loaded counts."""
        self.device = choose_device(device).name
        torch.set_num_threads(threads)
        self._module = _load(model, self.device)

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """The named outputs for a batch x (n, ...), each (n, ...)."""
        rows = torch.from_numpy(np.require(x, requirements=("C", "W")))  # a request's are read-only
        # Optimising records two slow runs for each new shape, and batches vary: measured, the first
        # run of a size costs up to twenty later ones, which are no faster for it.
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # not in its __all__
            values = dict(zip(OUTPUTS, self._module(rows.to(self.device)), strict=True))
            return {output: values[output].cpu().numpy() for output in outputs}


def choose_device(asked: str) -> Device:
    """The device for 'auto', 'cpu' or 'cuda:0'. Raises BadInput when it is not there."""
    return pick_device(asked, there=_device_count, works=_can_use_cuda)


def _load(model: bytes, device: str) -> torch.jit.ScriptModule:
    # TorchScript is deprecated upstream and says so at each call; bundles carry it all the same.
    # Not catch_warnings: it swaps the filters of every thread, and bundles load in threads.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")
    try:
        module = torch.jit.load(io.BytesIO(model), map_location=device)  # type: ignore[no-untyped-call]  # torch.jit has no annotations
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module.eval())
    except Exception as error:  # RuntimeError, with a page of C++ below its first line
        reason = str(error).strip().partition("\n")[0]
        raise BundleRefused(f"torch cannot load model.pt: {reason}") from error
    return frozen


def _device_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _can_use_cuda() -> bool:
    try:
        torch.zeros(1, device="cuda:0").item()
    except RuntimeError:
        return False
    return True
