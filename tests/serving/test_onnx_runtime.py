"""ONNX Runtime as we use it: right numbers, nothing computed in vain, honest about devices."""

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from amiss_export.errors import BadInput, BundleRefused
from amiss_serving import onnx_runtime
from amiss_serving.graphs import identity_graph
from amiss_serving.onnx_runtime import (
    OnnxRuntime,
    batch_size,
    choose_device,
    cuda_options,
    wants_few_sizes,
)
from bundle_factory import (
    convolution_graph,
    convolution_scores,
    normal_rows,
    table_graph,
    table_scores,
)


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


def test_only_convolutions_on_cuda_are_run_in_few_sizes() -> None:
    """A table's graph takes batches as they come, and so does everything on the CPU."""
    assert wants_few_sizes("cuda:0", convolution_graph())
    assert not wants_few_sizes("cpu", convolution_graph())
    assert not wants_few_sizes("cuda:0", identity_graph())


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 1), (2, 4), (4, 4), (5, 16), (17, 64), (256, 256), (257, 1024)]
)
def test_a_batch_is_filled_up_to_the_next_size(rows: int, size: int) -> None:
    """Sizes are the powers of four; a batch that has one of them is left as it is."""
    assert batch_size(rows) == size


def pictures(n: int) -> NDArray[np.uint8]:
    return np.random.default_rng(n).integers(0, 256, (n, 1, 8, 8)).astype(np.uint8)


def check_sizes(runtime: OnnxRuntime, *, rtol: float) -> None:
    """Rows 1 to 20, up and down, score what they score alone, the reconstruction likewise."""
    for n in [*range(1, 21), *range(20, 0, -1)]:
        x = pictures(n)
        got = runtime.run(x, ("score", "reconstruction") if n % 3 == 0 else ("score",))
        np.testing.assert_allclose(got["score"], convolution_scores(x), rtol=rtol)
        assert n % 3 or got["reconstruction"].shape == x.shape


def test_rows_of_a_filled_up_batch_are_the_callers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where few sizes are run, every answer has as many rows as were asked for, and its own."""
    monkeypatch.setattr(onnx_runtime, "wants_few_sizes", lambda *_: True)
    runtime = OnnxRuntime(convolution_graph().SerializeToString(), device="cpu")
    check_sizes(runtime, rtol=1e-5)
    assert {size for _, size in runtime._sessions} == {1, 4, 16, 64}
    assert len(set(runtime._sessions.values())) == len(runtime._sessions)


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
def test_convolutions_on_the_cuda_device_give_the_same_scores_in_every_size() -> None:
    """Whatever the size of a batch and of the one before, the scores are the formula's."""
    runtime = OnnxRuntime(convolution_graph().SerializeToString(), device="cuda:0")
    check_sizes(runtime, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not has_cuda(), reason="needs a CUDA device")
def test_the_service_says_nothing_but_json(capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's own warnings stay off stderr, where the log is read by machines."""
    OnnxRuntime(table_graph(3).SerializeToString(), device="cuda:0").run(normal_rows(3), ("score",))
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
@pytest.mark.skipif(not has_cuda(), reason="needs a CUDA device")
def test_an_option_that_the_provider_does_not_know_is_named() -> None:
    """A misspelt provider option is the operator's error, not the bundle's."""
    model = table_graph(3).SerializeToString()
    with pytest.raises(BadInput, match="gpu_memory=1"):
        OnnxRuntime(model, device="cuda:0", provider_options={"gpu_memory": "1"})
    with pytest.raises(BadInput, match="device_id is chosen by --device"):
        OnnxRuntime(model, device="cuda:0", provider_options={"device_id": "1"})
