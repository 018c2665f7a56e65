"""ONNX Runtime as we use it: right numbers, nothing computed in vain, honest about devices."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from amiss_export.errors import BadInput, BundleRefused
from amiss_serving.runtimes import OnnxRuntime, choose_device
from bundle_factory import normal_rows, table_graph, table_scores


def test_bytes_that_are_no_graph_are_refused() -> None:
    """Garbage is refused as such, not a crash of a parser."""
    with pytest.raises(BundleRefused, match="no ONNX graph"):
        OnnxRuntime(b"\xff\xff\xff garbage", device="cpu")


def test_a_graph_that_cannot_run_is_refused() -> None:
    """A graph with an operator that nobody knows is refused with ONNX Runtime's reason."""
    model = table_graph(3)
    model.graph.node[0].op_type = "Nonesuch"
    with pytest.raises(BundleRefused, match="Nonesuch"):
        OnnxRuntime(model.SerializeToString(), device="cpu")


def test_scores_equal_the_formula() -> None:
    """The runtime's scores equal the same formula written in numpy."""
    x = normal_rows(64)
    runtime = OnnxRuntime(table_graph(3).SerializeToString(), device="cpu")
    got = runtime.run(x, ("score", "reconstruction"))
    np.testing.assert_allclose(got["score"], table_scores(x), rtol=1e-6)
    np.testing.assert_array_equal(got["reconstruction"], np.tile(np.arange(3), (64, 1)))


def test_an_output_nobody_asked_for_is_not_computed() -> None:
    """With a reconstruction that always fails, the score alone still comes out."""
    model = table_graph(3)
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 7]), "wrong"))
    model.graph.node[-1].CopyFrom(helper.make_node("Reshape", ["x", "wrong"], ["reconstruction"]))
    runtime = OnnxRuntime(model.SerializeToString(), device="cpu")
    x = normal_rows(5)
    assert runtime.run(x, ("score",))["score"].shape == (5,)
    with pytest.raises(Exception, match="Reshape"):
        runtime.run(x, ("score", "reconstruction"))


def has_cuda() -> bool:
    return choose_device("auto").name != "cpu"


@pytest.mark.skipif(has_cuda(), reason="this machine has a CUDA device")
def test_without_a_cuda_device_auto_is_the_cpu_and_cuda_is_refused() -> None:
    """auto says in one line why it is the CPU; cuda:0 is an error, not a silent CPU."""
    assert str(choose_device("auto")) == "device cpu (no CUDA device)"
    with pytest.raises(BadInput, match="0 CUDA devices"):
        OnnxRuntime(table_graph(3).SerializeToString(), device="cuda:0")


@pytest.mark.gpu
@pytest.mark.skipif(not has_cuda(), reason="needs a CUDA device")
def test_the_cuda_device_gives_the_same_scores() -> None:
    """On the device the scores equal the CPU's to the parity we promise."""
    x, model = normal_rows(64), table_graph(3).SerializeToString()
    runtime = OnnxRuntime(model, device="cuda:0")
    assert runtime.device == "cuda:0"
    got = runtime.run(x, ("score",))["score"]
    np.testing.assert_allclose(got, table_scores(x), rtol=1e-5)


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:", "CPU", "cuda:00", ""])
def test_an_unknown_device_is_named(device: str) -> None:
    """A device other than auto, cpu and cuda:0 is refused, saying which there are."""
    with pytest.raises(BadInput, match="auto, cpu or cuda:0"):
        choose_device(device)
