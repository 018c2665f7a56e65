"""What happens to an ONNX graph before ONNX Runtime sees it: checked for safety, cut to size."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper

from amiss_export.errors import BundleRefused


def parse_graph(model: bytes) -> onnx.ModelProto:
    """The graph, when every tensor of it lies inside. Raises BundleRefused.

    ONNX Runtime would follow an external tensor's path, `../` and all (CVE-2024-27318 and others).
    """
    try:
        proto = onnx.load_model_from_string(model)
    except (DecodeError, ValueError) as error:
        raise BundleRefused(f"model.onnx is no ONNX graph: {error}") from error
    for tensor in _tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise BundleRefused(
                f"model.onnx keeps tensor {tensor.name!r} in another file; export it with the "
                "weights inside"
            )
    return proto


def keep_outputs(model: onnx.ModelProto, outputs: Iterable[str]) -> onnx.ModelProto:
    """A copy of the graph with these outputs and only the nodes and weights that they need.

    ONNX Runtime runs every node whatever was asked for; its only_execute_path_to_fetches works in
    training builds alone (onnxruntime#16013).
    """
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    graph = kept.graph
    needed = set(outputs)
    absent = needed - {value.name for value in graph.output}
    if absent:
        raise BundleRefused(f"model.onnx has no output {sorted(absent)}")
    _keep(graph.output, needed)
    nodes = []
    for node in reversed(graph.node):  # ONNX keeps nodes in the order of computation
        if needed.intersection(node.output):
            needed.update(_names_read(node))
            nodes.append(node)
    nodes.reverse()
    del graph.node[:]
    graph.node.extend(nodes)
    _keep(graph.initializer, needed)
    return kept


def has_convolutions(model: onnx.ModelProto) -> bool:
    """Whether the graph, or a function it calls, convolves."""
    nodes = chain(model.graph.node, *(function.node for function in model.functions))
    return any(node.op_type in {"Conv", "ConvTranspose"} for node in nodes)


def identity_graph() -> onnx.ModelProto:
    """The smallest graph there is, to see whether a device works."""
    x, score = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "score")
    )
    node = helper.make_node("Identity", ["x"], ["score"])
    graph = helper.make_graph([node], "probe", [x], [score])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _keep(items: Any, needed: set[str]) -> None:
    """Delete from a repeated field what is not named; protobuf has no type for such a field."""
    for i in reversed(range(len(items))):
        if items[i].name not in needed:
            del items[i]


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Every name the node may read, those that its sub-graphs take from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _names_read(inner)


def _tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor anywhere below: initializers, attributes, sub-graphs, functions, sparse ones."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for child in (value,) if isinstance(value, Message) else value:
            yield from _tensors(child)
