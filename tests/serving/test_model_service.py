"""amiss.v1.ModelService through a running service, and versions swapped under load."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import pytest_asyncio

from amiss.v1 import model_pb2 as models_pb
from amiss.v1.model_pb2_grpc import ModelServiceStub
from amiss.v1.scoring_pb2_grpc import ScoringServiceStub
from amiss_client import AsyncClient, DetectorNotFound, InvalidInput, LoadFailed, PermissionDenied
from amiss_serving.server import serving
from bundle_factory import normal_rows, table_scores, write_table_bundle
from swap_models import Callers, is_answer_of, write_version

from .conftest import free_ports

CALLERS, SWAPS = 200, 12


@dataclass
class Running:
    """A service in explicit mode with table@1 (stable) and table@2 (canary)."""

    models: Path
    address: str
    client: AsyncClient


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    for version in (1, 2):
        write_version(tmp_path, version)
    (tmp_path / "table" / "labels.json").write_text('{"stable": 1, "canary": 2}')
    async with (
        serving(free_ports(tmp_path, repository_mode="explicit")) as at,
        AsyncClient(at.grpc) as client,
    ):
        yield Running(tmp_path, at.grpc, client)


async def test_promoted_and_rolled_back_in_one_call_each(running: Running) -> None:
    """After promote the bare name is version 2, after rollback 1; labels are told with it."""
    change = await running.client.promote("table", "canary", "stable")
    assert (change.version, change.version_before) == (2, 1)
    assert change.labels == {"stable": 2, "canary": 2, "previous": 1}
    info = await running.client.get_detector("table")
    assert (info.version, info.labels) == (2, ("canary", "stable"))
    change = await running.client.rollback("table")
    assert (change.version, change.version_before) == (1, 2)
    assert (await running.client.get_detector("table")).version == 1


async def test_a_label_that_meant_nothing_has_no_version_before(running: Running) -> None:
    """A new label says so, and names the version from then on."""
    change = await running.client.promote("table", 2, "trial")
    assert (change.version, change.version_before) == (2, None)
    assert (await running.client.get_detector("table", "trial")).version == 2


async def test_what_cannot_be_promoted_is_an_error_of_its_own(running: Running) -> None:
    """Unknown, broken and nameless: not found, load failed, invalid; stable is what it was."""
    write_table_bundle(running.models)
    (running.models / "table" / "3" / "model.onnx").write_bytes(b"broken")
    client = running.client
    with pytest.raises(LoadFailed, match=r"version 3 was refused: .*not the file that was"):
        await client.promote("table", 3, "stable")
    with pytest.raises(DetectorNotFound, match="has no version or label '9'"):
        await client.promote("table", 9, "stable")
    with pytest.raises(DetectorNotFound, match="no detector 'nope'"):
        await client.promote("nope", 1, "stable")
    for version, label in ((2, "7"), ("", "stable")):
        with pytest.raises(InvalidInput):
            await client.promote("table", version, label)
    with pytest.raises(InvalidInput, match="not on record"):
        await client.rollback("table")
    assert (await client.get_detector("table")).version == 1


async def test_it_is_off_unless_switched_on(tmp_path: Path) -> None:
    """By default both methods are refused with the option that allows them."""
    write_table_bundle(tmp_path)
    async with serving(free_ports(tmp_path)) as at, AsyncClient(at.grpc) as client:
        for change in (client.promote("table", 1, "stable"), client.rollback("table")):
            with pytest.raises(PermissionDenied, match="--repository-mode poll or explicit"):
                await change


async def test_the_metrics_page_names_what_is_served(tmp_path: Path) -> None:
    """After a poll has found version 2 the page announces it, and version 1 no longer."""
    write_version(tmp_path, 1)
    settings = free_ports(tmp_path, repository_mode="poll", poll_s=0.02)
    async with serving(settings) as at, httpx.AsyncClient() as http, asyncio.timeout(10):
        write_version(tmp_path, 2)
        page = ""
        while 'amiss_model_info{model="table",version="2"} 1.0' not in page:
            page = (await http.get(f"http://{at.metrics}/metrics")).text
        assert 'amiss_model_info{model="table",version="1"}' not in page
        assert 'amiss_model_load_duration_seconds{model="table",version="2"}' in page


async def test_swaps_under_load_fail_no_request_and_mix_no_versions(running: Running) -> None:
    """With 200 requests in flight, twelve swaps, a fresh version and a rollback, every request is
    answered, with the scores of the version that the answer names."""
    async with grpc.aio.insecure_channel(running.address) as channel:
        load = Callers(ScoringServiceStub(channel))
        swap: Any = ModelServiceStub(channel)
        callers = [asyncio.create_task(load.call(seed)) for seed in range(CALLERS)]
        for n in range(SWAPS):
            version = str(1 + n % 2)
            if n == SWAPS // 2:
                write_version(running.models, 3)
                version = "3"
            request = models_pb.PromoteRequest(name="table", version=version, label="stable")
            await swap.Promote(request)
        back = await swap.Rollback(models_pb.RollbackRequest(name="table"))
        load.stopped = True
        await asyncio.gather(*callers)
    assert load.wrong == []
    assert set(load.answers) == {1, 2, 3}
    assert sum(load.answers.values()) >= CALLERS
    assert back.version in (1, 2)


def test_the_versions_of_these_tests_cannot_be_mistaken() -> None:
    """The check used above fails for the scores of any other version."""
    x = normal_rows(2)
    for version in (1, 2, 3):
        scores = 4.0**version * table_scores(x).astype(np.float64)
        assert [v for v in (1, 2, 3) if is_answer_of(v, x, scores.tolist())] == [version]
