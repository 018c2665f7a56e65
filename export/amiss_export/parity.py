"""Do the exported files compute what the trained detector computes?"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from amiss_export.bundle import Parity
from amiss_export.errors import ParityFailed
from amiss_export.onnx_runtime import onnxruntime
from amiss_export.to_onnx import INPUT
from amiss_export.to_torchscript import load_torchscript

MIN_ROWS = 1_000
TOLERANCE = 1e-5  # of the calibration scores' interquartile range
BATCH_ROWS = 256

Scores = NDArray[np.float32]


def onnx_scores(path: Path, x: NDArray[np.generic]) -> Scores:
    """Scores (n,) of raw rows, by ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return _in_batches(x, lambda rows: session.run(["score"], {INPUT: rows})[0])


def onnx_reconstruction(path: Path, x: NDArray[np.generic]) -> NDArray[np.float32]:
    """What the detector expected of raw rows, in their unit, by ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return _in_batches(x, lambda rows: session.run(["reconstruction"], {INPUT: rows})[0])


def check_parity(
    graph: nn.Module, *, onnx: Path, torchscript: Path, x: NDArray[np.generic], scale: float
) -> Parity:
    """Largest score differences on at least MIN_ROWS rows, in units of `scale`.

    x: raw rows; repeated with the batches cut differently when there are too few of them, so that
    batch size is part of what is compared. Raises ParityFailed beyond TOLERANCE.
    """
    rows = np.concatenate([x] * -(-MIN_ROWS // len(x))) if len(x) < MIN_ROWS else x
    script = load_torchscript(torchscript)
    eager = _in_batches(rows, lambda part: _torch_scores(graph, part))
    found = {
        "onnx": onnx_scores(onnx, rows),
        "torchscript": _in_batches(rows, lambda part: _torch_scores(script, part)),
    }
    worst = {name: float(np.abs(scores - eager).max()) / scale for name, scores in found.items()}
    for name, difference in worst.items():
        if not difference <= TOLERANCE:
            raise ParityFailed(
                f"{name} scores differ from the trained detector's by {difference:.2g} of the "
                f"calibration scale, more than {TOLERANCE:g}, on {len(rows)} rows; the bundle is "
                "not written: train longer, or choose another read-out (--vae.readout)"
            )
    return Parity(rows=len(rows), tolerance=TOLERANCE, **worst)


def _torch_scores(model: nn.Module | torch.jit.ScriptModule, rows: NDArray[np.generic]) -> Scores:
    with torch.inference_mode():
        scores: Scores = model(torch.from_numpy(rows))[0].numpy()
    return scores


def _in_batches(x: NDArray[np.generic], run: Callable[[NDArray[np.generic]], Scores]) -> Scores:
    parts = [run(x[i : i + BATCH_ROWS]) for i in range(0, len(x), BATCH_ROWS)]
    return np.concatenate(parts)
