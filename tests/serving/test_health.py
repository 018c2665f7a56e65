"""Health while models load, unload and hang: grpc.health.v1, /healthz and /readyz agree."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from amiss.v1 import scoring_pb2 as pb
from amiss.v1.scoring_pb2_grpc import ScoringServiceStub
from amiss_export.errors import BundleRefused
from amiss_serving.engine import Engine
from amiss_serving.grpc_bridge import AsyncContext
from amiss_serving.health import NOT_SERVING, REPUBLISH_S, SERVING, HealthServicer
from amiss_serving.server import serving
from bundle_factory import write_table_bundle

from .conftest import free_ports, rows
from .seams import Seams

SCORE = "/v1/detectors/{}:score"


class Probes:
    """Ways to ask a service how it is."""

    def __init__(self, client: httpx.AsyncClient, channel: grpc.aio.Channel) -> None:
        self.client = client
        self.channel = channel
        self._health: Any = health_pb2_grpc.HealthStub(channel)

    async def check(self, name: str = "") -> int:
        answer = await self._health.Check(health_pb2.HealthCheckRequest(service=name))
        return int(answer.status)

    def watch(self, name: str) -> Any:
        return self._health.Watch(health_pb2.HealthCheckRequest(service=name))

    async def http(self) -> tuple[int, int]:
        """The status of /healthz and of /readyz."""
        live, ready = [await self.client.get(path) for path in ("/healthz", "/readyz")]
        return live.status_code, ready.status_code


@asynccontextmanager
async def probing(seams: Seams, **options: Any) -> AsyncIterator[Probes]:
    async with (
        serving(free_ports(seams.models, **options), seams.build) as addresses,
        httpx.AsyncClient(base_url=f"http://{addresses.http}") as client,
        grpc.aio.insecure_channel(addresses.grpc) as channel,
    ):
        yield Probes(client, channel)


async def status(watch: Any) -> int:
    async with asyncio.timeout(5):
        return int((await watch.read()).status)


async def test_a_hanging_model_turns_everything_red_until_it_comes_back(tmp_path: Path) -> None:
    """Live, ready, the whole and every name fail while a run hangs, and recover when it ends."""
    write_table_bundle(tmp_path)
    write_table_bundle(tmp_path, "other")
    seams = Seams(tmp_path, stalled_after_s=0.1)
    async with probing(seams) as probes:
        watch = probes.watch("other")
        assert await status(watch) == SERVING
        assert await probes.http() == (200, 200)
        seams.runtime.free.clear()
        body = {"rows": rows(1).tolist()}
        hanging = asyncio.create_task(probes.client.post(SCORE.format("table"), json=body))
        assert await status(watch) == NOT_SERVING
        assert await probes.http() == (503, 503)
        told = (await probes.client.get("/healthz")).json()["error"]
        assert "table@1" in told
        assert [await probes.check(name) for name in ("", "table")] == [NOT_SERVING] * 2
        seams.runtime.free.set()
        assert (await hanging).status_code == 200
        assert await status(watch) == SERVING
        assert await probes.http() == (200, 200)
        watch.cancel()


def test_a_hanging_model_shows_within_five_seconds() -> None:
    """The engine's patience and the pause between two looks add up to less than 5 s."""
    patience_s = inspect.signature(Engine).parameters["stalled_after_s"].default
    assert patience_s + REPUBLISH_S < 5


async def test_one_hanging_model_does_not_stop_the_others(tmp_path: Path) -> None:
    """While one hangs and readiness fails, requests that still come for another are answered."""
    write_table_bundle(tmp_path)
    write_table_bundle(tmp_path, "other")
    seams = Seams(tmp_path, stalled_after_s=0.05)
    async with probing(seams) as probes:
        seams.runtime.free.clear()
        body = {"rows": rows(1).tolist()}
        hanging = asyncio.create_task(probes.client.post(SCORE.format("table"), json=body))
        while (await probes.http())[1] == 200:
            await asyncio.sleep(0.01)
        asked = asyncio.create_task(probes.client.post(SCORE.format("other"), json=body))
        await asyncio.sleep(0.05)
        seams.runtime.free.set()
        assert [(await hanging).status_code, (await asked).status_code] == [200, 200]


async def test_a_model_that_hangs_on_the_thread_of_the_rpcs_does_not_keep_the_others_out(
    tmp_path: Path,
) -> None:
    """Quick runs are made where RPCs come in; when one does not come back, they still come in."""
    write_table_bundle(tmp_path)
    seams = Seams(tmp_path, stalled_after_s=0.5)
    async with probing(seams) as probes:
        stub: Any = ScoringServiceStub(probes.channel)
        request = pb.ScoreRequest(
            detector="table",
            tensor=pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=(1, 3), data=rows(1).tobytes()),
        )
        for _ in range(3):  # the first is no known quick one
            assert (await stub.Score(request)).scores == [1]
        seams.runtime.free.clear()
        hanging = [asyncio.ensure_future(stub.Score(request, timeout=20)) for _ in range(3)]
        async with asyncio.timeout(4):
            while await probes.check() == SERVING:
                await asyncio.sleep(0.01)
        assert sum(thread.name == "grpc" for thread in threading.enumerate()) == 2
        seams.runtime.free.set()
        assert [(await answer).scores for answer in hanging] == [[1]] * 3
        async with asyncio.timeout(4):
            while await probes.check() != SERVING:
                await asyncio.sleep(0.01)
            while sum(thread.name == "grpc" for thread in threading.enumerate()) > 1:
                await asyncio.sleep(0.01)
        assert (await stub.Score(request)).scores == [1]


async def test_watch_follows_a_name_through_unload_and_load(tmp_path: Path) -> None:
    """Unloading one name turns it and not the whole red; loading it again turns it green."""
    write_table_bundle(tmp_path)
    write_table_bundle(tmp_path, "other")
    seams = Seams(tmp_path, mode="explicit")
    async with probing(seams) as probes:
        watch = probes.watch("table")
        assert await status(watch) == SERVING
        await seams.service.repository.unload("table")
        assert await status(watch) == NOT_SERVING
        assert [await probes.check(name) for name in ("", "other")] == [SERVING] * 2
        await seams.service.repository.load("table")
        assert await status(watch) == SERVING
        await seams.service.repository.unload("table")
        await seams.service.repository.unload("other")
        assert await status(watch) == NOT_SERVING
        assert await probes.check("") == NOT_SERVING
        assert await probes.http() == (200, 503)
        watch.cancel()


async def test_a_name_that_was_never_there_may_come(tmp_path: Path) -> None:
    """Who watches an unknown name hears SERVICE_UNKNOWN, and SERVING once it is published."""
    write_table_bundle(tmp_path)
    seams = Seams(tmp_path, mode="poll")
    async with probing(seams) as probes:
        watch = probes.watch("late")
        assert await status(watch) == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await probes.check("late")
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
        write_table_bundle(tmp_path, "late")
        await seams.service.repository.refresh()
        assert await status(watch) == SERVING
        watch.cancel()


async def test_when_every_bundle_is_refused_it_is_not_ready_and_says_so(tmp_path: Path) -> None:
    """/readyz counts the refused bundles and says where their reasons are; /healthz is well."""
    write_table_bundle(tmp_path)
    write_table_bundle(tmp_path, "other")

    def refuse() -> None:
        raise BundleRefused("not today")

    async with probing(Seams(tmp_path, before_load=refuse)) as probes:
        assert await probes.http() == (200, 503)
        told = (await probes.client.get("/readyz")).json()["error"]
        assert "2 refused" in told
        assert "ListDetectors" in told
        assert [await probes.check(name) for name in ("", "table")] == [NOT_SERVING] * 2


async def test_a_failed_look_is_not_the_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An error while health is being looked at is logged, and the next look publishes again."""
    write_table_bundle(tmp_path)
    seams = Seams(tmp_path, mode="explicit")
    async with probing(seams) as probes:
        repository = seams.service.repository
        answering, failures = repository.answering, iter([RuntimeError("once")])

        def fail_once() -> Any:
            for failure in failures:
                raise failure
            return answering()

        repository.answering = fail_once  # type: ignore[method-assign]
        watch = probes.watch("table")
        assert await status(watch) == SERVING
        while "health could not be published" not in caplog.text:
            await asyncio.sleep(0.02)
        await repository.unload("table")
        assert await status(watch) == NOT_SERVING
        watch.cancel()


async def test_a_watcher_that_does_not_read_holds_up_nobody() -> None:
    """While one caller's window is shut, the word changes, others hear it, and the end comes."""
    servicer = HealthServicer()
    heard: list[int] = []

    class Shut(AsyncContext):
        def __init__(self) -> None:
            pass

        async def write(self, message: Any) -> None:
            await asyncio.Event().wait()

    class Open(Shut):
        async def write(self, message: Any) -> None:
            heard.append(message.status)

    request = health_pb2.HealthCheckRequest(service="")
    watching = [asyncio.create_task(servicer.Watch(request, kind())) for kind in (Shut, Open)]
    async with asyncio.timeout(5):
        await servicer.set({"": SERVING})
        await asyncio.sleep(0.01)
        await servicer.end()
        await asyncio.sleep(0.01)
    assert heard[-2:] == [SERVING, NOT_SERVING]
    for task in watching:
        task.cancel()
