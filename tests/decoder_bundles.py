"""Real bundles with a decoder whose samples the tests can work out by hand: z @ weight + bias."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from amiss_export.bundle import DECODER, Bundle, read_bundle
from amiss_export.publish import publish, writing_bundle
from bundle_factory import write_image_bundle, write_table_bundle

Floats = NDArray[np.float32]


def table_with_decoder(models: Path, members: Sequence[str] = ("vae",)) -> Bundle:
    """Newest version of 'table': a number x0 and the category colour; member i adds 10 i to x0."""
    version = write_table_bundle(models, d=1, categories=("red", "green"))
    weight = np.array([[1, 0], [0, 0]], dtype=np.float32)
    biases = {
        name: np.array([10 * i, 2 + i % 2], dtype=np.float32) for i, name in enumerate(members)
    }
    return _with_decoder(models, "table", version, weight=weight, biases=biases, shape=(2,))


def images_with_decoder(
    models: Path, members: Sequence[str] = ("vae",), *, channels: int = 1
) -> Bundle:
    """Newest version of 'image', 4x4 pixels: 100 + 10 z0 everywhere, 50 more for each member."""
    version = write_image_bundle(models, channels=channels, height=4, width=4)
    shape = (channels, 4, 4)
    weight = np.full((1, channels * 16), 10, dtype=np.float32)
    biases = {
        name: np.full(channels * 16, 100 + 50 * i, dtype=np.float32)
        for i, name in enumerate(members)
    }
    return _with_decoder(models, "image", version, weight=weight, biases=biases, shape=shape)


def _with_decoder(
    models: Path,
    name: str,
    version: int,
    *,
    weight: Floats,
    biases: Mapping[str, Floats],
    shape: tuple[int, ...],
) -> Bundle:
    """The bundle once more, with a decoder beside its other files."""
    bundle = read_bundle(models, name, version)
    with writing_bundle(models, name) as folder:
        for file in bundle.manifest.files:
            (folder / file).write_bytes(bundle.read(file))
        (folder / DECODER).write_bytes(_decoder(weight, biases, shape).SerializeToString())
        return read_bundle(models, name, publish(folder, bundle.manifest))


def _decoder(
    weight: Floats, biases: Mapping[str, Floats], shape: tuple[int, ...]
) -> onnx.ModelProto:
    nodes, constants = [], {"weight": weight, "shape": np.array([-1, *shape], dtype=np.int64)}
    for member, bias in biases.items():
        constants[f"{member}_bias"] = bias
        nodes += [
            helper.make_node("Gemm", ["z", "weight", f"{member}_bias"], [f"{member}_flat"]),
            helper.make_node("Reshape", [f"{member}_flat", "shape"], [member]),
        ]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", len(weight)])],
        [helper.make_tensor_value_info(m, TensorProto.FLOAT, ["n", *shape]) for m in biases],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model
