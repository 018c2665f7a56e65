"""Real bundles without training: tiny ONNX graphs whose scores the tests can work out by hand.

table: score = mean over columns of ((x - j) / (j + 1))^2, missing numbers (NaN) count as the mean j
image: score = mean over pixels of (x / 255 - 0.5)^2; reconstruction is the constant in both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from amiss_export.bundle import (
    CALIBRATION,
    ONNX,
    TORCHSCRIPT,
    Column,
    ImageInput,
    Manifest,
    Output,
    Parity,
    Provenance,
    TableInput,
)
from amiss_export.decision import calibrate
from amiss_export.publish import publish, writing_bundle

Floats = NDArray[np.float32]
Constants = dict[str, NDArray[Any]]
GREY = 127.5


def write_table_bundle(
    models: Path,
    name: str = "table",
    *,
    threshold_rate: float = 0.05,
    d: int = 3,
    categories: Sequence[str] = (),
    missing: str = "impute",
    calibration_rows: int = 200,
    seed: int = 0,
    graph: onnx.ModelProto | None = None,
) -> int:
    """Version of a fresh table bundle: columns x0..x{d-1}, and 'colour' when categories are given.

    Numbers in column j are normal around j with deviation j + 1, so a row of [0, 1, .., d-1]
    scores 0. `graph` replaces the model, for tests that need a bad one.
    """
    columns = [
        Column.model_validate(
            {"name": f"x{j}", "kind": "number", "dtype": "float32", "missing": missing}
        )
        for j in range(d)
    ]
    if categories:
        columns.append(
            Column(name="colour", kind="category", dtype="str", categories=tuple(categories))
        )
    rows = normal_rows(calibration_rows, d=d, categories=len(categories), seed=seed)
    return write_bundle(
        models,
        name,
        graph or table_graph(len(columns)),
        TableInput(
            columns=tuple(columns),
            source_columns=(*(c.name for c in columns), "label"),
            label_column="label",
        ),
        calibration=table_scores(rows),
        threshold_rate=threshold_rate,
    )


def write_image_bundle(
    models: Path,
    name: str = "image",
    *,
    threshold_rate: float = 0.05,
    channels: int = 1,
    height: int = 8,
    width: int = 8,
    calibration_rows: int = 200,
    seed: int = 0,
) -> int:
    """Version of a fresh image bundle: mid-grey pictures are normal, black and white are not."""
    shape = (calibration_rows, channels, height, width)
    images = np.random.default_rng(seed).integers(78, 178, shape).astype(np.uint8)
    return write_bundle(
        models,
        name,
        image_graph(),
        ImageInput.model_validate({"channels": channels, "height": height, "width": width}),
        calibration=image_scores(images),
        threshold_rate=threshold_rate,
    )


def write_bundle(
    models: Path,
    name: str,
    graph: onnx.ModelProto,
    spec: TableInput | ImageInput,
    *,
    calibration: Floats,
    threshold_rate: float,
) -> int:
    """Version under which the graph is published with its calibration; model.pt is a dummy."""
    decision, ordered = calibrate(calibration, alarm_rate=threshold_rate)
    if isinstance(spec, TableInput):
        shape: tuple[int, ...] = (-1, len(spec.columns))
    else:
        shape = (-1, spec.channels, spec.height, spec.width)
    manifest = Manifest(
        name=name,
        detector="vae",
        readout="reconstruction",
        input=spec,
        outputs=(Output(name="score", shape=(-1,)), Output(name="reconstruction", shape=shape)),
        decision=decision,
        provenance=Provenance(
            created="2026-01-02T03:04:05+00:00",
            recipe=None,
            seed=0,
            config={},
            data_hash="0" * 64,
            split_hash={},
            split_rows={"calibration": len(ordered)},
            duplicate_rows_removed=0,
            git_commit=None,
            libraries={},
        ),
        parity=Parity(rows=0, tolerance=1e-5, onnx=0.0, torchscript=0.0),
    )
    with writing_bundle(models, name) as folder:
        (folder / ONNX).write_bytes(graph.SerializeToString())
        (folder / TORCHSCRIPT).write_bytes(b"no TorchScript in this test bundle")
        np.save(folder / CALIBRATION, ordered, allow_pickle=False)
        return publish(folder, manifest)


def normal_rows(n: int, *, d: int = 3, categories: int = 0, seed: int = 0) -> Floats:
    """(n, d) float32 normal rows; with categories one more column of their codes."""
    rng = np.random.default_rng(seed)
    j = np.arange(d)
    rows = rng.normal(j, j + 1, (n, d)).astype(np.float32)
    if categories:
        codes = rng.integers(2, 2 + categories, (n, 1)).astype(np.float32)
        rows = np.hstack([rows, codes])
    return rows


def table_scores(rows: Floats) -> Floats:
    """What the table graph answers, (n,), written with numpy."""
    j = np.arange(rows.shape[1], dtype=np.float32)
    filled = np.where(np.isnan(rows), j, rows)
    scores: Floats = (((filled - j) / (j + 1)) ** 2).mean(axis=1).astype(np.float32)
    return scores


def image_scores(images: NDArray[np.uint8]) -> Floats:
    """What the image graph answers, (n,), written with numpy."""
    scores: Floats = ((images / np.float32(255) - np.float32(0.5)) ** 2).mean(
        axis=(1, 2, 3), dtype=np.float32
    )
    return scores


def table_graph(d: int) -> onnx.ModelProto:
    """The table model: float32 x (n, d) -> score (n,), reconstruction (n, d)."""
    j = np.arange(d, dtype=np.float32)
    constants: Constants = {"mean": j, "deviation": j + 1, "axes": np.array([1], dtype=np.int64)}
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "mean", "x"], ["filled"]),
        helper.make_node("Sub", ["filled", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "scaled"], ["squared"]),
        helper.make_node("ReduceMean", ["squared", "axes"], ["score"], keepdims=0),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["mean", "shape"], ["reconstruction"]),
    ]
    return make_graph(nodes, constants, TensorProto.FLOAT, ["n", d])


def image_graph() -> onnx.ModelProto:
    """The image model: uint8 x (n, c, h, w) -> score (n,), reconstruction (n, c, h, w)."""
    constants: Constants = {
        "white": np.array([255], dtype=np.float32),
        "half": np.array([0.5], dtype=np.float32),
        "grey": np.array([GREY], dtype=np.float32),
        "axes": np.array([1, 2, 3], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "white"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "half"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squared"]),
        helper.make_node("ReduceMean", ["squared", "axes"], ["score"], keepdims=0),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["grey", "shape"], ["reconstruction"]),
    ]
    return make_graph(nodes, constants, TensorProto.UINT8, ["n", "c", "h", "w"])


def convolution_graph() -> onnx.ModelProto:
    """uint8 x (n, 1, h, w) -> score, the mean of what a 3x3 box blur makes of it; image_graph's
    reconstruction."""
    box = np.full((1, 1, 3, 3), 1 / 9, np.float32)
    constants: Constants = {
        "box": box,
        "grey": np.array([GREY], dtype=np.float32),
        "axes": np.array([1, 2, 3], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "box"], ["blurred"]),
        helper.make_node("ReduceMean", ["blurred", "axes"], ["score"], keepdims=0),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["grey", "shape"], ["reconstruction"]),
    ]
    return make_graph(nodes, constants, TensorProto.UINT8, ["n", 1, "h", "w"])


def convolution_scores(images: NDArray[np.uint8]) -> Floats:
    """What the convolution graph answers for (n, 1, h, w), (n,), written with numpy."""
    windows = np.lib.stride_tricks.sliding_window_view(images[:, 0], (3, 3), axis=(1, 2))
    scores: Floats = windows.mean(axis=(1, 2, 3, 4)).astype(np.float32)
    return scores


def make_graph(
    nodes: Sequence[onnx.NodeProto],
    constants: Constants,
    element: int,
    shape: Sequence[str | int],
) -> onnx.ModelProto:
    """A checked model with input x and the outputs that every bundle has."""
    graph = helper.make_graph(
        list(nodes),
        "detector",
        [helper.make_tensor_value_info("x", element, list(shape))],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("reconstruction", TensorProto.FLOAT, list(shape)),
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model
