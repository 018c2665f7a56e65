"""The runtimes side by side: what each takes, and that threads may share one."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest

from amiss_export.bundle import Bundle, read_bundle
from amiss_export.errors import BadInput
from amiss_serving.devices import Device
from amiss_serving.runtimes import (
    RuntimeKind,
    RuntimeOptions,
    choose_device,
    open_runtime,
    spare_device_memory,
    warm_up_rows,
)
from amiss_serving.settings import RUNTIMES
from bundle_factory import normal_rows, table_scores
from torchscript_bundles import table_with_torchscript

from .torchserve_marks import needs_torchserve

# 400 runs of TorchServe take half a minute; a few threads prove as much.
KINDS = [
    *(pytest.param(kind, 50) for kind in RUNTIMES if kind != "torchserve"),
    pytest.param("torchserve", 10, marks=[needs_torchserve, pytest.mark.slow]),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    models = tmp_path_factory.mktemp("models")
    return read_bundle(models, "table", table_with_torchscript(models))


def test_the_settings_know_every_runtime() -> None:
    """The names that a setting may have are the runtimes that there are."""
    assert get_args(RuntimeKind) == RUNTIMES


@pytest.mark.parametrize(("kind", "runs"), KINDS)
def test_threads_that_share_a_runtime_get_their_own_rows(
    bundle: Bundle, kind: RuntimeKind, runs: int
) -> None:
    """Eight threads, each with runs of different rows and sizes: every score is of its own row."""
    runtime = open_runtime(bundle, RuntimeOptions(kind=kind, device="cpu"))

    def hammer(seed: int) -> bool:
        for i in range(runs):
            x = normal_rows(1 + (seed + i) % 9, seed=1000 * seed + i)
            outputs = ("score", "reconstruction") if i % 3 == 0 else ("score",)
            got = runtime.run(x, outputs)["score"]
            if not np.allclose(got, table_scores(x), rtol=1e-5):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(hammer, range(8)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RuntimeOptions(device="cpu", gpu_mem_limit_bytes=1000), "got gpu_mem_limit=1000"),
        (RuntimeOptions(device="cpu", provider_options={"a": "b"}), "got a=b"),
        (
            RuntimeOptions(kind="torchscript", device="cpu", provider_options={"a": "b"}),
            "'torchscript' takes no provider options, got a;",
        ),
    ],
)
def test_options_that_have_no_meaning_are_refused_by_name(
    bundle: Bundle, options: RuntimeOptions, message: str
) -> None:
    """Memory limit and provider options are ONNX Runtime's on CUDA, and silent nowhere else."""
    with pytest.raises(BadInput, match=message):
        open_runtime(bundle, options)


@pytest.mark.parametrize("kind", RUNTIMES)
@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:", "CPU", "cuda:00", ""])
def test_an_unknown_device_is_named(device: str, kind: RuntimeKind) -> None:
    """A device other than auto, cpu and cuda:0 is refused, saying which there are."""
    with pytest.raises(BadInput, match="auto, cpu or cuda:0"):
        choose_device(device, kind)


def test_every_size_that_cuda_runs_is_warmed_up() -> None:
    """From one row to the size that the largest batch is filled up to; on the CPU nothing."""
    assert warm_up_rows(Device("cpu"), 256) == ()
    assert warm_up_rows(Device("cuda:0"), 256) == (1, 4, 16, 64, 256)
    assert warm_up_rows(Device("cuda:0"), 100) == (1, 4, 16, 64, 256)
    assert warm_up_rows(Device("cuda:0"), 1) == (1,)


def test_workspaces_are_small_where_onnx_runtime_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for ONNX Runtime, and never over what the operator set."""
    variable = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(variable, "theirs")
    spare_device_memory("onnx")
    assert os.environ[variable] == "theirs"
    monkeypatch.delenv(variable)
    spare_device_memory("torchscript")
    assert variable not in os.environ
    spare_device_memory("onnx")
    assert os.environ[variable] == ":16:8"
