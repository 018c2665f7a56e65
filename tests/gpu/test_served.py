"""The service on a device beside the service on the CPU: the same answers, and plain refusals."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from amiss_client import AsyncClient, Scores
from amiss_export.bundle import resolve_version
from amiss_export.errors import BadInput, BundleRefused
from amiss_serving.detector import load_detector
from amiss_serving.devices import driver_device_count
from amiss_serving.runtimes import RuntimeKind, RuntimeOptions, choose_device
from amiss_serving.server import serving
from amiss_serving.settings import Settings
from bench.serving.gpu_checks import KINDS, in_mixed_sizes
from bench.serving.models import Inputs, Model
from bench.serving.service import amiss_service

from .conftest import needs_cuda, of_all_contrasts

on_cuda = pytest.param("cuda:0", marks=[pytest.mark.gpu, needs_cuda])
Served = tuple[Model, Model]


def settings(models: Path, device: str, kind: RuntimeKind) -> Settings:
    return Settings(
        models=str(models), device=device, runtime=kind, http_port=0, grpc_port=0, metrics_port=0
    )


async def answers(address: str, model: Model, parts: list[Inputs]) -> list[Scores]:
    """Each part's answer with its reconstruction, one request after the other."""
    async with AsyncClient(address, timeout_s=60) as client:
        return [
            await client.score_tensor(model.name, part, include_reconstruction=True)
            for part in parts
        ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ["cpu", on_cuda])
async def test_the_device_answers_what_the_cpu_answers(
    served_models: Served, device: str, kind: RuntimeKind, tmp_path: Path
) -> None:
    """600 rows in requests of all sizes, by `amiss serve`: scores within 1e-5 of the calibration
    scale, at most one verdict apart, reconstructions the same within 1e-5 of white."""
    options = ("--device", device, "--runtime", kind)
    with amiss_service(served_models[0], tmp_path, options) as service:
        for model in served_models:
            x = model.inputs(600)
            x = of_all_contrasts(x) if x.ndim == 4 else x
            address = urlsplit(service.amiss_v1.url).netloc
            got = await answers(address, model, in_mixed_sizes(x))
            check(model, x, got)


def check(model: Model, x: Inputs, got: list[Scores]) -> None:
    """Nothing, when the answers are those of ONNX Runtime on the CPU, in this process."""
    version = resolve_version(model.models, model.name)
    cpu = load_detector(model.models, model.name, version, options=RuntimeOptions(device="cpu"))
    expected, tolerance = cpu.score(x, reconstruct=True), cpu.bundle.manifest.parity.tolerance
    scores, is_anomaly, reconstruction = (
        np.concatenate([getattr(answer, name) for answer in got])
        for name in ("score", "is_anomaly", "reconstruction")
    )
    off = np.abs(scores - expected.verdicts.score).max()
    assert off <= tolerance * cpu.rule.decision.scale
    assert 0 < expected.verdicts.is_anomaly.sum() < len(x)
    assert (is_anomaly != expected.verdicts.is_anomaly).sum() <= 1
    assert expected.reconstruction is not None
    np.testing.assert_allclose(reconstruction, expected.reconstruction, rtol=0, atol=255e-5)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_the_first_device(kind: RuntimeKind) -> None:
    """Where a device works, auto takes cuda:0 and has nothing to explain."""
    assert str(choose_device("auto", kind)) == "device cuda:0"


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_device_that_is_not_there_stops_the_service(
    served_models: Served, kind: RuntimeKind
) -> None:
    """One device more than there are is refused at start, by its name and with their number."""
    count = driver_device_count()
    absent = settings(served_models[0].models, f"cuda:{count}", kind)
    with pytest.raises(BadInput, match=f"'cuda:{count}' asked for, but there are {count} CUDA"):
        async with serving(absent):
            pass


@pytest.mark.gpu
@needs_cuda
def test_a_memory_limit_that_is_too_small_is_named(served_models: Served) -> None:
    """A model that a kilobyte does not hold is refused by the limit's name, and nothing crashes."""
    for model in served_models:
        version = resolve_version(model.models, model.name)
        limited = RuntimeOptions(device="cuda:0", gpu_mem_limit_bytes=1024)
        with pytest.raises(BundleRefused, match="gpu_mem_limit_bytes 1024"):
            load_detector(model.models, model.name, version, options=limited)


@pytest.mark.gpu
@needs_cuda
async def test_beyond_the_memory_limit_the_service_goes_on(served_models: Served) -> None:
    """A service of which no detector fits says so when asked for one, and is alive."""
    limited = replace(settings(served_models[0].models, "cuda:0", "onnx"), gpu_mem_limit_bytes=1024)
    async with serving(limited) as addresses:
        assert addresses.detectors == ()
        async with httpx.AsyncClient(base_url=f"http://{addresses.http}") as client:
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_process_sees_only_the_devices_it_is_given(kind: RuntimeKind, hidden: str) -> None:
    """With none in CUDA_VISIBLE_DEVICES, auto is the CPU whatever the machine has."""
    code = f"from amiss_serving.runtimes import choose_device as c; print(c('auto', {kind!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": hidden},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "device cpu (no CUDA device)\n"
