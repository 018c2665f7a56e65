"""The graph as one ONNX file: weights inside, any number of rows."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

INPUT, OUTPUTS = "x", ("score", "reconstruction")
OPSET = 20


def write_onnx(
    graph: nn.Module,
    example: Tensor,
    path: Path,
    *,
    input_name: str = INPUT,
    output_names: Sequence[str] = OUTPUTS,
) -> None:
    """Nothing; writes `graph` to `path`. example: rows of its input, (n >= 2, ...)."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # progress chatter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))  # inside the exporter
        torch.onnx.export(
            graph,
            (example,),
            path,
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            optimize=True,
            verbose=False,
        )
