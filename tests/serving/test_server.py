"""The service as a whole: start, ports, drain, signals."""

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from amiss.v1 import scoring_pb2 as pb
from amiss.v1 import scoring_pb2_grpc
from amiss_export.errors import BadInput
from amiss_serving.server import serving
from bundle_factory import write_table_bundle

from .conftest import Slow, free_ports, rows

SCORE = "/v1/detectors/table:score"
PROGRAM = """
import json, sys
from amiss_serving.server import run
from amiss_serving.settings import Settings
sys.exit(run(Settings(**json.loads(sys.argv[1])), on_ready=lambda at: print(at.http)))
"""


async def test_an_empty_folder_is_alive_but_not_ready(tmp_path: Path) -> None:
    """Without a detector /healthz is 200, /readyz 503 with the reason, health NOT_SERVING."""
    async with serving(free_ports(tmp_path)) as addresses:
        async with httpx.AsyncClient(base_url=f"http://{addresses.http}") as client:
            assert (await client.get("/healthz")).status_code == 200
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            assert "no detector is loaded" in ready.json()["error"]
            assert (await client.post(SCORE, json={"rows": [[1]]})).status_code == 503
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_what_was_there_at_the_start_can_be_let_go_of(tmp_path: Path) -> None:
    """Unloaded, it is gone at once, not held until the garbage collector happens to run."""
    write_table_bundle(tmp_path)
    gc.disable()
    try:
        settings = free_ports(tmp_path, repository_mode="explicit")
        async with serving(settings) as addresses, httpx.AsyncClient() as client:
            repository = f"http://{addresses.http}/v2/repository"
            await client.post(f"{repository}/models/table/unload")
            (entry,) = (await client.post(f"{repository}/index")).json()
        assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "unloaded")
    finally:
        gc.enable()


@pytest.mark.parametrize("key", ["http_port", "grpc_port", "metrics_port"])
async def test_a_port_in_use_is_one_clear_line(tmp_path: Path, key: str) -> None:
    """The refusal names the port and the option, whichever of the three it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, key: port}
        flag = key.replace("_", "-")
        with pytest.raises(BadInput, match=f"port {port} on 127.0.0.1 is in use.*--{flag}"):
            async with serving(free_ports(tmp_path, **options)):
                pass


async def test_a_host_that_is_not_ours_is_named(tmp_path: Path) -> None:
    """An address of another machine is refused by name."""
    settings = free_ports(tmp_path, host="192.0.2.1", insecure=True)
    with pytest.raises(BadInput, match=r"192\.0\.2\.1 cannot be bound"):
        async with serving(settings):
            pass


async def test_ipv6_loopback_serves(tmp_path: Path) -> None:
    """Addresses with colons come in brackets and work on all three ports."""
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    write_table_bundle(tmp_path)
    async with serving(free_ports(tmp_path, host="::1")) as addresses:
        assert addresses.http.startswith("[::1]:")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://{addresses.http}/readyz")).status_code == 200
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
            assert (await scoring.ListDetectors(pb.ListDetectorsRequest())).detectors


async def test_draining_fails_health_first_and_finishes_what_is_under_way(slow: Slow) -> None:
    """While a request runs: readiness and health fail, newcomers are refused, it is answered."""
    slow.runtime.free.clear()
    async with (
        httpx.AsyncClient(base_url=slow.http) as client,
        grpc.aio.insecure_channel(slow.addresses.grpc) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="table"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        x = rows(1)
        request = pb.ScoreRequest(
            detector="table",
            tensor=pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=x.shape, data=x.tobytes()),
        )
        over_http = asyncio.create_task(client.post(SCORE, json={"rows": x.tolist()}))
        over_grpc = scoring.Score(request)
        while not slow.runtime.entered.is_set():
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(slow.stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "draining" in ready.json()["error"]
        assert (await client.post(SCORE, json={"rows": x.tolist()})).status_code == 503
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await scoring.Score(request)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        slow.runtime.free.set()
        assert (await over_http).status_code == 200
        assert list((await over_grpc).scores) == [1]
        await stopping


def start(models: Path, **options: Any) -> tuple["subprocess.Popen[str]", dict[str, Any]]:
    """A real service process, and its 'ready' log line."""
    settings = {"models": str(models), "device": "cpu", **options}
    settings |= {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        told = json.loads(line)  # every line is JSON, or this fails
        if told["message"] == "ready":
            return process, told
    pytest.fail(f"the service ended with {process.wait()} before it was ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    """A request under way at the signal is answered; then the process ends with code 0."""
    write_table_bundle(tmp_path)
    process, ready = start(tmp_path, batch_delay_ms=600, token="secret")
    answers: list[httpx.Response] = []

    def ask() -> None:
        headers = {"authorization": "Bearer secret"}
        url = f"http://{ready['http']}{SCORE}"
        answers.append(httpx.post(url, json={"rows": [[0, 1, 2]]}, headers=headers))

    asking = threading.Thread(target=ask)
    asking.start()
    assert process.stderr is not None
    threading.Event().wait(0.3)
    os.kill(process.pid, number)
    rest = process.stderr.read()
    assert process.wait(timeout=10) == 0
    asking.join()
    assert process.stdout is not None
    assert process.stdout.read().split() == [ready["http"]]
    process.stdout.close()
    process.stderr.close()
    assert [answer.status_code for answer in answers] == [200]
    lines = [json.loads(line) for line in rest.splitlines()]
    assert [line["message"] for line in lines] == ["draining", "stopped"]
    assert "secret" not in rest


def test_a_signal_while_bundles_load_ends_it_at_once(tmp_path: Path) -> None:
    """Nobody waits for a bundle that takes a minute: it drains and exits with code 0."""
    write_table_bundle(tmp_path)
    slowly = """
import time
from amiss_serving import server
server.load_detector = lambda *_, **__: time.sleep(60)
"""
    settings = {"models": str(tmp_path), "http_port": 0, "grpc_port": 0, "metrics_port": 0}
    process = subprocess.Popen(
        [sys.executable, "-c", slowly + PROGRAM, json.dumps(settings)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any('"message":"starting"' in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=15) == 0
    process.stderr.close()


def test_importing_the_service_needs_no_torch() -> None:
    """Loading the server pulls in neither torch nor the training room."""
    check = (
        "import sys, amiss_serving.server; "
        "sys.exit(bool({'torch', 'lightning', 'amiss_training', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


async def test_a_body_still_on_its_way_after_the_drain_is_answered_503(
    slow: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller cut off while sending hears that the service stopped; the log holds its id."""
    host, port = slow.addresses.http.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {SCORE} HTTP/1.1\r\nhost: {host}\r\nx-request-id: mine\r\n"
    writer.write(f'{head}content-length: 99\r\n\r\n{{"rows"'.encode())
    await asyncio.sleep(0.1)
    with caplog.at_level("INFO"):
        stopping = asyncio.create_task(slow.stop())
        answer = (await reader.read()).decode()
        await stopping
    writer.close()
    assert answer.startswith("HTTP/1.1 503")
    assert '"request_id":"mine"' in answer
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert (line.fields["request_id"], line.fields["code"]) == ("mine", "503")  # type: ignore[attr-defined]
    assert not [record for record in caplog.records if record.exc_info]
