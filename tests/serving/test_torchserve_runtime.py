"""TorchServe behind the engine: the same scores as in process, and no waiting for the dead."""

import asyncio
import gc
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from amiss_client import AsyncClient
from amiss_export.bundle import read_bundle
from amiss_export.errors import AmissError, BadInput
from amiss_serving.errors import NotReady
from amiss_serving.server import serving
from amiss_serving.settings import Settings
from amiss_serving.torchserve.runtime import TorchServeRuntime, _values
from bundle_factory import normal_rows, table_scores
from torchscript_bundles import table_with_torchscript

from .torchserve_marks import needs_torchserve

BACK_S = 15  # a killed worker is replaced by then, as the issue has it


@pytest.fixture(scope="module")
def restarts() -> list[tuple[str, int]]:
    return []


@pytest.fixture(scope="module")
def runtime(
    tmp_path_factory: pytest.TempPathFactory, restarts: list[tuple[str, int]]
) -> TorchServeRuntime:
    models = tmp_path_factory.mktemp("models")
    bundle = read_bundle(models, "table", table_with_torchscript(models))
    return TorchServeRuntime(
        bundle, device="cpu", on_restart=lambda name, version: restarts.append((name, version))
    )


def workers() -> list[psutil.Process]:
    """The processes of TorchServe below this one that run models."""
    return [p for p in psutil.Process().children(recursive=True) if _runs_a_model(p)]


def _runs_a_model(process: psutil.Process) -> bool:
    try:
        return "model_service_worker.py" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


@needs_torchserve
@pytest.mark.slow
def test_scores_and_reconstructions_are_the_graphs(runtime: TorchServeRuntime) -> None:
    """One row or many, score alone or with the reconstruction: the formula's numbers."""
    for n in (1, 7, 300):
        x = normal_rows(n)
        got = runtime.run(x, ("score", "reconstruction"))
        np.testing.assert_allclose(got["score"], table_scores(x), rtol=1e-5)
        assert got["reconstruction"].shape == x.shape
        np.testing.assert_array_equal(runtime.run(x, ("score",))["score"], got["score"])


@needs_torchserve
@pytest.mark.slow
def test_a_killed_worker_fails_its_runs_at_once_and_is_replaced(
    runtime: TorchServeRuntime, restarts: list[tuple[str, int]]
) -> None:
    """Runs under way and runs that come are refused, not left to hang, until a new one answers."""
    x, longest_s, refused = normal_rows(1), 0.0, 0
    (worker,) = workers()
    os.kill(worker.pid, signal.SIGSTOP)  # a run is under way when it dies
    killer = threading.Timer(0.5, worker.kill)
    killer.start()
    killed_s = time.monotonic()
    while True:
        began_s = time.monotonic()
        try:
            runtime.run(x, ("score",))
        except NotReady:
            refused += 1
            time.sleep(0.05)
        else:
            break
        finally:
            longest_s = max(longest_s, time.monotonic() - began_s)
        assert time.monotonic() < killed_s + 0.5 + BACK_S
    assert refused
    assert longest_s < 5
    assert [w.pid for w in workers()] != [worker.pid]
    assert [name for name, _ in restarts] == ["table"]
    runtime.check_ready()


@needs_torchserve
@pytest.mark.slow
def test_the_service_answers_through_it(tmp_path: Path) -> None:
    """`--runtime torchserve`: ready with a live worker, answers through the doors, and leaves no
    process behind."""
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    table_with_torchscript(tmp_path)
    settings = Settings(
        models=str(tmp_path), runtime="torchserve", http_port=0, grpc_port=0, metrics_port=0
    )

    async def ask() -> list[float]:
        async with serving(settings) as addresses, AsyncClient(addresses.grpc) as client:
            return (await client.score_tensor("table", normal_rows(5))).score.tolist()

    np.testing.assert_allclose(asyncio.run(ask()), table_scores(normal_rows(5)), rtol=1e-5)
    gc.collect()  # of the service, which is all over
    for thread in threading.enumerate():
        if thread.name == "torchserve-end":
            thread.join(20)
    after = {p.pid for p in psutil.Process().children(recursive=True)}
    assert after <= before


def test_an_answer_that_is_no_numbers_says_why() -> None:
    """The handler's error comes as JSON in the place of the outputs; anything else is counted."""
    error = b'{"error":"no finite number","request_id":"1","status":400}'
    with pytest.raises(AmissError, match="no finite number"):
        _values(error, {"score": (2,)})
    with pytest.raises(AmissError, match="unexpected answer of 3 bytes"):
        _values(b"abc", {"score": (2,)})


@needs_torchserve
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    bundle = read_bundle(tmp_path, "table", table_with_torchscript(tmp_path))
    with pytest.raises(BadInput, match="CUDA devices"):
        TorchServeRuntime(bundle, device="cuda:9")
