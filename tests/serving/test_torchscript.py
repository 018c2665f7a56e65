"""TorchScript in process: the same answers as ONNX Runtime, and torch only where it is wanted."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from amiss_export.errors import BadInput, BundleRefused
from amiss_serving.detector import LoadedDetector, load_detector
from amiss_serving.runtimes import RuntimeOptions
from amiss_serving.torchscript import TorchScriptRuntime, choose_device
from bundle_factory import normal_rows, table_scores
from torchscript_bundles import images_with_torchscript, table_with_torchscript, write_table_script

CPU = RuntimeOptions(kind="torchscript", device="cpu")
HAS_CUDA = torch.cuda.is_available()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_table_script(tmp_path_factory.mktemp("script") / "model.pt")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """torch's one thread setting goes back to what it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def both(models: Path, name: str, version: int) -> tuple[LoadedDetector, LoadedDetector]:
    onnx = load_detector(models, name, version, options=RuntimeOptions(device="cpu"))
    return onnx, load_detector(models, name, version, options=CPU)


def test_a_table_scores_as_in_onnx_runtime(tmp_path: Path) -> None:
    """On 300 rows with gaps the scores differ by 1e-5 of the scale at most, batch by batch."""
    onnx, script = both(tmp_path, "table", table_with_torchscript(tmp_path))
    x = normal_rows(300, seed=1)
    x[::7, 1] = np.nan
    scale = onnx.rule.decision.scale
    for start, stop in ((0, 1), (1, 34), (34, 300)):
        a, b = (d.score(x[start:stop], reconstruct=True) for d in (onnx, script))
        assert np.abs(a.verdicts.score - b.verdicts.score).max() <= 1e-5 * scale
        assert a.reconstruction is not None
        np.testing.assert_array_equal(a.reconstruction, b.reconstruction)


def test_images_score_as_in_onnx_runtime(tmp_path: Path) -> None:
    """On 64 pictures the scores differ by 1e-5 of the scale at most."""
    onnx, script = both(tmp_path, "image", images_with_torchscript(tmp_path))
    x = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)
    a, b = (d.score(x, reconstruct=True) for d in (onnx, script))
    assert np.abs(a.verdicts.score - b.verdicts.score).max() <= 1e-5 * onnx.rule.decision.scale
    assert a.reconstruction is not None
    np.testing.assert_array_equal(a.reconstruction, b.reconstruction)


def test_only_what_was_asked_for_comes_back(script: bytes) -> None:
    """The graph computes both outputs; the caller sees the named ones, in any order."""
    runtime = TorchScriptRuntime(script, device="cpu")
    x = normal_rows(4)
    assert list(runtime.run(x, ("score",))) == ["score"]
    got = runtime.run(x, ("reconstruction", "score"))
    assert got["reconstruction"].shape == (4, 3)
    np.testing.assert_allclose(got["score"], table_scores(x), rtol=1e-6)


def test_rows_as_they_arrive_are_taken(script: bytes) -> None:
    """Read-only bytes of a request and rows that are not in one piece score like any other."""
    runtime = TorchScriptRuntime(script, device="cpu")
    x = normal_rows(6)
    received = np.frombuffer(x.tobytes(), np.float32).reshape(x.shape)
    assert not received.flags.writeable
    for rows in (received, x[::2], x[::-1]):
        got = runtime.run(rows, ("score",))["score"]
        np.testing.assert_allclose(got, table_scores(rows), rtol=1e-6)


def test_loading_warns_of_nothing(script: bytes) -> None:
    """TorchScript's deprecation, which is upstream's to say, reaches nobody's log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TorchScriptRuntime(script, device="cpu")
    assert caught == []


def test_the_threads_asked_for_are_set(script: bytes) -> None:
    """threads is what torch uses inside one run."""
    TorchScriptRuntime(script, device="cpu", threads=2)
    assert torch.get_num_threads() == 2


def test_bytes_that_are_no_graph_are_refused_in_one_line() -> None:
    """Garbage is refused as such, without torch's page of C++."""
    with pytest.raises(BundleRefused, match=r"torch cannot load model\.pt") as caught:
        TorchScriptRuntime(b"no TorchScript", device="cpu")
    assert "\n" not in str(caught.value)


def test_without_torch_the_extra_is_named_and_onnx_still_loads() -> None:
    """Where torch is missing, asking for it is BadInput naming the extra; ONNX needs none."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from amiss_serving import server\n"
        "from amiss_serving.runtimes import choose_device\n"
        "print(choose_device('cpu').name)\n"
        "try:\n    choose_device('cpu', 'torchscript')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    device, error = done.stdout.splitlines()
    assert device == "cpu"
    assert error.startswith("BadInput runtime 'torchscript' needs torch")
    assert "amiss[torchscript]" in error


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a CUDA device")
def test_without_a_cuda_device_auto_is_the_cpu_and_cuda_is_refused(script: bytes) -> None:
    """auto says why it is the CPU; cuda:0 is an error, not a silent CPU."""
    assert str(choose_device("auto")) == "device cpu (no CUDA device)"
    with pytest.raises(BadInput, match="0 CUDA devices"):
        TorchScriptRuntime(script, device="cuda:0")


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")
def test_the_cuda_device_gives_the_same_scores(script: bytes) -> None:
    """On the device the scores equal the formula to the parity we promise."""
    x = normal_rows(64)
    runtime = TorchScriptRuntime(script, device="cuda:0")
    assert runtime.device == "cuda:0"
    np.testing.assert_allclose(runtime.run(x, ("score",))["score"], table_scores(x), rtol=1e-5)
