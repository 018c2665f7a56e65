"""The graph as a TorchScript file, for runtimes without ONNX."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


def write_torchscript(graph: nn.Module, example: Tensor, path: Path) -> None:
    """Nothing; writes `graph`, frozen, to `path`. example: raw rows (n >= 2, ...)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))  # torch.jit itself
        # Sizes of images are constants.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # not in its __all__
        traced = torch.jit.trace(graph.eval(), (example,), check_trace=False)  # type: ignore[no-untyped-call]  # torch.jit has no annotations
        torch.jit.freeze(traced).save(str(path))


def load_torchscript(path: Path, device: str = "cpu") -> torch.jit.ScriptModule:
    """The graph in `path`, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))  # torch.jit itself
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]  # torch.jit has no annotations
        module.eval()
        return module
