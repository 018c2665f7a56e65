"""Graphs are refused when they reach for other files, and cut to what is asked of them."""

from collections.abc import Callable

import onnx
import pytest
from onnx import TensorProto, helper

from amiss_export.errors import BundleRefused
from amiss_serving.graphs import has_convolutions, identity_graph, keep_outputs, parse_graph
from bundle_factory import convolution_graph, table_graph


def external(name: str = "weights") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def branch(tensor: onnx.TensorProto) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_graph([], "branch", [], [value], [tensor])


def in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external())


def in_sparse_initializer(model: onnx.ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(external())


def in_subgraph(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch(external())))


def in_constant_of_a_function(model: onnx.ModelProto) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=external())
    model.functions.append(
        helper.make_function("local", "f", [], ["y"], [constant], model.opset_import)
    )


def by_key_only(model: onnx.ModelProto) -> None:
    tensor = external()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    "hide",
    [in_initializer, in_sparse_initializer, in_subgraph, in_constant_of_a_function, by_key_only],
)
def test_external_data_is_refused_wherever_it_hides(
    hide: Callable[[onnx.ModelProto], None],
) -> None:
    """A tensor kept in another file is refused by name before ONNX Runtime sees the graph."""
    model = table_graph(3)
    hide(model)
    with pytest.raises(BundleRefused, match="'weights' in another file"):
        parse_graph(model.SerializeToString())


def test_only_the_nodes_and_weights_an_output_needs_are_kept() -> None:
    """The score's graph has no reconstruction in it; the whole graph keeps all its nodes."""
    whole = table_graph(3)
    score = keep_outputs(whole, ["score"]).graph
    assert [value.name for value in score.output] == ["score"]
    assert {node.op_type for node in score.node}.isdisjoint({"Shape", "Expand"})
    reconstruction = keep_outputs(whole, ["reconstruction"]).graph
    assert [node.op_type for node in reconstruction.node] == ["Shape", "Expand"]
    assert [tensor.name for tensor in reconstruction.initializer] == ["mean"]
    assert keep_outputs(whole, ["score", "reconstruction"]) == whole


def test_what_a_subgraph_reads_from_outside_is_kept() -> None:
    """A node that only a branch of an If uses is not cut away."""
    inside = helper.make_graph(
        [helper.make_node("Neg", ["outer"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["n"])],
    )
    whole = identity_graph()
    del whole.graph.node[:]
    whole.graph.node.extend(
        [
            helper.make_node("Abs", ["x"], ["outer"]),
            helper.make_node("Exp", ["x"], ["unused"]),
            helper.make_node("If", ["x"], ["score"], then_branch=inside, else_branch=inside),
        ]
    )
    kept = keep_outputs(whole, ["score"]).graph.node
    assert [node.op_type for node in kept] == ["Abs", "If"]


def test_an_output_that_is_not_there_is_named() -> None:
    """A graph without the output is refused, naming it."""
    with pytest.raises(BundleRefused, match=r"no output .*heat_map"):
        keep_outputs(table_graph(3), ["heat_map"])


def test_a_convolution_is_found_in_the_graph_or_in_a_function_it_calls() -> None:
    """A table's graph has none, a picture's has, and so has one that hides it in a function."""
    assert not has_convolutions(table_graph(3))
    assert has_convolutions(convolution_graph())
    hidden = table_graph(3)
    hidden.functions.add(domain="own", name="f").node.add(op_type="ConvTranspose")
    assert has_convolutions(hidden)
