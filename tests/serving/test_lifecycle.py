"""Start and end: what the doors answer while bundles load, and that nothing is lost on SIGTERM."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from amiss.v1 import scoring_pb2 as pb
from amiss.v1 import scoring_pb2_grpc
from amiss_client import Client
from amiss_export.errors import BadInput
from amiss_serving.health import NOT_SERVING, SERVING
from amiss_serving.server import serving
from bundle_factory import write_table_bundle

from .conftest import Slow, free_ports, rows
from .seams import Seams
from .test_server import SCORE, start


@asynccontextmanager
async def http_at(socket: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def wait_until_queued(ready: dict[str, Any], rows: int) -> None:
    """Return when so many rows wait for their batch."""
    line = f'amiss_queue_rows{{model="table",version="1"}} {rows}.0'
    with httpx.Client(timeout=5) as client:
        while line not in client.get(f"http://{ready['metrics']}/metrics").text:
            threading.Event().wait(0.01)


async def test_the_doors_answer_while_bundles_load(tmp_path: Path) -> None:
    """Live at once; not ready, with the reason, on both doors until loaded; then ready."""
    models, sockets = tmp_path / "models", {"http_socket": "h.sock", "grpc_socket": "g.sock"}
    write_table_bundle(models)
    loading, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        loading.set()
        assert go_on.wait(timeout=10)

    paths = {option: str(tmp_path / name) for option, name in sockets.items()}
    seams = Seams(models, before_load=wait)
    opening = serving(free_ports(models, **paths), seams.build)
    ready = asyncio.create_task(opening.__aenter__())
    try:
        await until(loading.is_set)
        async with (
            http_at(tmp_path / "h.sock") as client,
            grpc.aio.insecure_channel(f"unix:{tmp_path / 'g.sock'}") as channel,
        ):
            health: Any = health_pb2_grpc.HealthStub(channel)
            scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
            check = health_pb2.HealthCheckRequest()
            assert (await client.get("/healthz")).status_code == 200
            for path in ("/readyz", "/v1/detectors", "/v1/detectors/table"):
                answer = await client.get(path)
                assert answer.status_code == 503
                assert "starting" in answer.json()["error"]
                assert answer.headers["retry-after"] == "1"
            scored = await client.post(SCORE, json={"rows": [[0, 1, 2]]})
            assert scored.status_code == 503
            assert (await health.Check(check)).status == NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as early:
                await scoring.ListDetectors(pb.ListDetectorsRequest())
            assert early.value.code() == grpc.StatusCode.UNAVAILABLE
            go_on.set()
            assert (await ready).detectors == ("table@1",)
            assert (await client.get("/readyz")).status_code == 200
            assert (await health.Check(check)).status == SERVING
            assert (await scoring.ListDetectors(pb.ListDetectorsRequest())).detectors
    finally:
        go_on.set()
        await ready
        await opening.__aexit__(None, None, None)


async def test_a_start_that_fails_closes_the_doors(tmp_path: Path) -> None:
    """When loading finds that the device is not there, the error comes out and the ports close."""
    write_table_bundle(tmp_path)

    def fail() -> None:
        raise BadInput("device 'cuda:0' is not there")

    seams = Seams(tmp_path, before_load=fail)
    settings = free_ports(tmp_path, http_socket=str(tmp_path / "h.sock"))
    with pytest.raises(BadInput, match="cuda:0"):
        async with serving(settings, seams.build):
            pytest.fail("it must not come up")
    assert not (tmp_path / "h.sock").exists()


async def test_newcomers_are_answered_for_a_while_after_readiness_fails(tmp_path: Path) -> None:
    """During drain_delay_s /readyz is 503 and /healthz 200 while rows are scored as before."""
    write_table_bundle(tmp_path)
    leaving = asyncio.Event()

    async def serve() -> None:
        settings = free_ports(
            tmp_path, http_socket=str(tmp_path / "h.sock"), drain_s=5, drain_delay_s=1.5
        )
        async with serving(settings):
            leaving.set()

    serve_task = asyncio.create_task(serve())
    await leaving.wait()
    async with http_at(tmp_path / "h.sock") as client:
        while (await client.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.01)
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post(SCORE, json={"rows": [[0, 1, 2]]})).status_code == 200
    await serve_task


async def test_a_run_that_outlasts_the_drain_is_cut_off(slow: Slow) -> None:
    """After drain_s the caller is told that the service stopped, and the process can end."""
    slow.runtime.free.clear()
    async with httpx.AsyncClient(base_url=slow.http) as client:
        asking = asyncio.create_task(client.post(SCORE, json={"rows": rows(1).tolist()}))
        await until(slow.runtime.entered.is_set)
        await slow.stop()
        answer = await asking
    assert answer.status_code == 503
    assert "stopped" in answer.json()["error"]


def test_sigterm_loses_no_request_of_either_door(tmp_path: Path) -> None:
    """Twenty requests in flight over HTTP and gRPC at SIGTERM are all answered; exit code 0."""
    write_table_bundle(tmp_path)
    process, ready = start(tmp_path, batch_delay_ms=2_000)
    url, body = f"http://{ready['http']}{SCORE}", {"rows": [[0, 1, 2]]}
    with (
        Client(ready["grpc"], token="") as client,
        httpx.Client(timeout=30) as http,
        ThreadPoolExecutor(20) as pool,
    ):
        over_http = [pool.submit(http.post, url, json=body) for _ in range(10)]
        over_grpc = [pool.submit(client.score_tensor, "table", rows(0)) for _ in range(10)]
        wait_until_queued(ready, 20)
        os.kill(process.pid, signal.SIGTERM)
        assert [asked.result().status_code for asked in over_http] == [200] * 10
        assert [len(asked.result()) for asked in over_grpc] == [1] * 10
    _, told = process.communicate(timeout=10)
    assert process.returncode == 0
    assert [json.loads(line)["message"] for line in told.splitlines()] == ["draining", "stopped"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path: Path, second: signal.Signals) -> None:
    """While a drain waits for a request, the next signal ends the process by its default."""
    write_table_bundle(tmp_path)
    process, ready = start(tmp_path, batch_delay_ms=20_000)
    failed: list[Exception] = []

    def ask() -> None:
        try:
            httpx.post(f"http://{ready['http']}{SCORE}", json={"rows": [[0, 1, 2]]}, timeout=30)
        except httpx.HTTPError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until_queued(ready, 1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.stderr is not None
    assert json.loads(process.stderr.readline())["message"] == "draining"
    os.kill(process.pid, second)
    process.communicate(timeout=5)
    assert process.returncode == -second
    asking.join()
    assert failed
