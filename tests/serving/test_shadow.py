"""Copies to the canary: which requests, what is compared, and that callers do not feel it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from amiss_export.bundle import Column
from amiss_serving.detector import LoadedDetector
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository
from amiss_serving.server import serving
from amiss_serving.shadow import Copy, Shadow, compare
from bundle_factory import normal_rows, write_table_bundle

from .conftest import POISON, FakeRuntime, MakeDetector, free_ports, rows
from .fake_models import FakeModels

CANARY = {"model": "table", "version": "2"}


@dataclass
class Bench:
    """table@1 (stable) and table@2 (canary), a shadow over them, and the metrics' values."""

    repository: DetectorRepository
    metrics: Metrics
    shadow: Shadow

    def value(self, name: str, **labels: str) -> float:
        """One sample of the page; 0 when it is not there."""
        return self.metrics.registry.get_sample_value(name, {**CANARY, **labels}) or 0.0

    def runtime(self, version: str) -> Any:
        return self.repository.resolve("table", version).runtime

    async def until(self, name: str, value: float) -> None:
        async with asyncio.timeout(10):
            while self.value(name) < value:
                await asyncio.sleep(0.001)


@pytest_asyncio.fixture
async def bench(tmp_path: Path, make_detector: MakeDetector) -> AsyncIterator[Bench]:
    """A shadow that copies everything, at most 4 rows at a time."""
    models = FakeModels(tmp_path, make_detector)
    for version in (1, 2):
        models.publish(version=version)
    (tmp_path / "table" / "labels.json").write_text('{"stable": 1, "canary": 2}')
    repository, metrics = models.repository(), Metrics(CollectorRegistry())
    shadow = Shadow(repository, metrics, share=1.0, max_rows=4)
    yield Bench(repository, metrics, shadow)
    for version in ("1", "2"):
        repository.resolve("table", version).runtime.free.set()  # type: ignore[attr-defined]
    shadow.close()


def test_a_comparison_is_of_the_same_rows(make_detector: MakeDetector) -> None:
    """Differences and disagreements are those of the two versions' own verdicts."""

    class Twice(FakeRuntime):
        def run(self, x: Any, outputs: tuple[str, ...]) -> dict[str, Any]:
            return {name: 2 * value for name, value in super().run(x, outputs).items()}

    default, canary = make_detector(FakeRuntime()), make_detector(Twice())
    threshold = default.rule.decision.threshold
    x = rows(0, 0.75 * threshold, 3 * threshold)
    told = compare(Copy(default, canary, x))
    ours, theirs = canary.rule(2 * x[:, 0]), default.rule(x[:, 0])
    np.testing.assert_allclose(
        told.differences, np.abs(ours.normalized_score - theirs.normalized_score)
    )
    assert told.disagreements == 1
    assert told.default_s > 0
    assert told.canary_s > 0


async def test_what_the_default_version_answered_is_copied(bench: Bench) -> None:
    """Rows are counted for the canary, times for both, and no request, row or batch elsewhere."""
    bench.shadow.offer(bench.repository.resolve("table"), rows(1, 2, 3))
    await bench.until("amiss_shadow_rows_total", 3)
    assert bench.value("amiss_shadow_score_difference_count") == 3
    assert bench.value("amiss_shadow_disagreements_total") == 0
    for version in ("1", "2"):
        assert bench.value("amiss_shadow_duration_seconds_count", version=version) == 1
    assert bench.value("amiss_rows_total") == 0


async def test_what_the_canary_answered_is_not_copied(bench: Bench) -> None:
    """Nor is anything once the name has no canary, or its canary is what answers."""
    bench.shadow.offer(bench.repository.resolve("table", "canary"), rows(1))
    await bench.repository.promote("table", "2", "stable")
    bench.shadow.offer(bench.repository.resolve("table"), rows(1))
    await asyncio.sleep(0.02)
    assert bench.runtime("2").calls == []


async def test_the_share_is_kept(bench: Bench) -> None:
    """With a share of a quarter and draws spread evenly, five of twenty requests are copied."""
    draws = iter(np.arange(20) / 20)
    shadow = Shadow(
        bench.repository, bench.metrics, share=0.25, max_rows=100, draw=lambda: float(next(draws))
    )
    for _ in range(20):
        shadow.offer(bench.repository.resolve("table"), rows(1))
    await bench.until("amiss_shadow_rows_total", 5)
    await asyncio.sleep(0.02)
    assert bench.value("amiss_shadow_rows_total") == 5
    shadow.close()


async def test_copies_under_way_are_few(bench: Bench) -> None:
    """While the canary hangs at most four rows are held; the rest is not copied at all."""
    bench.runtime("2").free.clear()
    for _ in range(50):
        bench.shadow.offer(bench.repository.resolve("table"), rows(1, 2, 3))
    bench.runtime("2").free.set()
    await bench.until("amiss_shadow_rows_total", 4)
    await asyncio.sleep(0.02)
    assert bench.value("amiss_shadow_rows_total") == 4
    bench.shadow.offer(bench.repository.resolve("table"), rows(1, 2, 3))
    await bench.until("amiss_shadow_rows_total", 7)


async def test_a_canary_that_fails_is_counted_and_told_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Every failure counts, one is logged, and later copies are still compared."""
    for _ in range(3):
        bench.shadow.offer(bench.repository.resolve("table"), rows(POISON))
    await bench.until("amiss_shadow_errors_total", 3)
    assert caplog.text.count("a canary failed on a copy") == 1
    bench.shadow.offer(bench.repository.resolve("table"), rows(1))
    await bench.until("amiss_shadow_rows_total", 1)


def test_versions_with_other_columns_are_not_compared(make_detector: MakeDetector) -> None:
    """The same cell may mean something else to the canary: an error, not a number."""
    default = make_detector(FakeRuntime())
    manifest = default.bundle.manifest
    columns = tuple(Column(name=f"y{i}", kind="number", dtype="float32") for i in range(3))
    spec = manifest.input.model_copy(update={"columns": columns})
    bundle = replace(default.bundle, manifest=manifest.model_copy(update={"input": spec}))
    canary: LoadedDetector = replace(default, bundle=bundle)
    with pytest.raises(Exception, match="does not take the input of version"):
        compare(Copy(default, canary, rows(1)))


async def test_callers_are_answered_by_stable_and_counted_once(tmp_path: Path) -> None:
    """Over HTTP with a share of 1: answers are stable's, the page has the copies beside them."""
    for seed in (1, 2):
        write_table_bundle(tmp_path, seed=seed)
    (tmp_path / "table" / "labels.json").write_text('{"stable": 1, "canary": 2}')
    async with serving(free_ports(tmp_path, shadow_share=1.0)) as at, httpx.AsyncClient() as client:
        x = normal_rows(8).tolist()
        for _ in range(5):
            answer = await client.post(
                f"http://{at.http}/v1/detectors/table:score", json={"rows": x}
            )
            assert answer.json()["version"] == 1
        async with asyncio.timeout(10):
            page = ""
            while 'amiss_shadow_rows_total{model="table",version="2"} 40.0' not in page:
                page = (await client.get(f"http://{at.metrics}/metrics")).text
    assert 'amiss_rows_total{model="table",version="1"} 40.0' in page
    assert 'amiss_rows_total{model="table",version="2"} 0.0' in page
    assert (
        'amiss_requests_total{code="200",method="Score",model="table",protocol="http",vers' in page
    )
