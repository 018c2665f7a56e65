"""ONNX Runtime as we use it: right numbers, nothing computed in vain, honest about devices."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from amiss_export.errors import BadInput, BundleRefused
from amiss_serving.onnx_runtime import OnnxRuntime, choose_device, cuda_options
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


def test_provider_options_on_the_cpu_are_refused_by_name() -> None:
    """They are CUDA's: on the CPU the refusal names each with its value."""
    with pytest.raises(BadInput, match="use_tf32=1, gpu_mem_limit=5"):
        OnnxRuntime(
            table_graph(3).SerializeToString(),
            device="cpu",
            provider_options={"use_tf32": "1", "gpu_mem_limit": "5"},
        )


def test_the_operators_options_win_over_ours_but_not_over_the_device() -> None:
    """Ours are the default, a named option replaces one, and the device is what --device says."""
    ours = cuda_options("cuda:1")
    assert (ours["arena_extend_strategy"], ours["device_id"]) == ("kSameAsRequested", "1")
    own = {"cudnn_conv_algo_search": "EXHAUSTIVE", "gpu_mem_limit": "1000", "device_id": "7"}
    changed = cuda_options("cuda:1", own)
    assert changed == {**ours, "cudnn_conv_algo_search": "EXHAUSTIVE", "gpu_mem_limit": "1000"}


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
    """On the device, within a memory limit, the scores equal the CPU's to the parity we promise."""
    x, model = normal_rows(64), table_graph(3).SerializeToString()
    runtime = OnnxRuntime(model, device="cuda:0", provider_options={"gpu_mem_limit": str(2**28)})
    assert runtime.device == "cuda:0"
    got = runtime.run(x, ("score",))["score"]
    np.testing.assert_allclose(got, table_scores(x), rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not has_cuda(), reason="needs a CUDA device")
def test_an_option_that_the_provider_does_not_know_is_named() -> None:
    """A misspelt provider option is the operator's error, not the bundle's."""
    model = table_graph(3).SerializeToString()
    with pytest.raises(BadInput, match="gpu_memory=1"):
        OnnxRuntime(model, device="cuda:0", provider_options={"gpu_memory": "1"})
    with pytest.raises(BadInput, match="device_id is chosen by --device"):
        OnnxRuntime(model, device="cuda:0", provider_options={"device_id": "1"})
