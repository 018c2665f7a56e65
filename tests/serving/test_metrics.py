"""The numbers on the metrics page, and that Prometheus' own linter accepts it."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from amiss_export.decision import Verdicts
from amiss_serving.histograms import ArrayHistogram
from amiss_serving.metrics import Metrics
from amiss_serving.server import serving
from bundle_factory import write_table_bundle

from .conftest import Served, free_ports

LABELS = {"model", "version", "protocol", "method", "code", "phase", "le"}
NAMES = {
    "amiss_requests",
    "amiss_request_duration_seconds",
    "amiss_phase_duration_seconds",
    "amiss_batch_rows",
    "amiss_queue_rows",
    "amiss_rows",
    "amiss_anomalies",
    "amiss_score_normalized",
    "amiss_p_value",
    "amiss_alarm_rate_expected",
    "amiss_worker_restarts",
    "amiss_shadow_rows",
    "amiss_shadow_disagreements",
    "amiss_shadow_errors",
    "amiss_shadow_score_difference",
    "amiss_shadow_duration_seconds",
    "amiss_ready",
    "amiss_refused_bundles",
    "amiss_model_info",
    "amiss_model_load_duration_seconds",
}


def test_the_array_histogram_counts_like_prometheus_own() -> None:
    """Buckets, sum and count equal those of prometheus_client fed row by row, bounds included."""
    bounds = (0.1, 0.25, 0.5, 1.0)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    array = ArrayHistogram("h", "text", ("model", "version"), bounds=bounds, registry=ours)
    plain = Histogram("h", "text", ("model", "version"), buckets=bounds, registry=theirs)
    values = np.array([0, 0.25, 0.5, 0.75, 1, 7, 0.125, 0.25], dtype=np.float32)
    for part in (values[:3], values[3:]):
        array.labels("m", "1").observe(part)
    for value in values.tolist():
        plain.labels("m", "1").observe(value)
    expected = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == expected


def test_a_bound_that_float32_rounds_up_still_holds_its_value() -> None:
    """float32(0.1) is above 0.1, and is counted in the bucket 0.1 all the same."""
    array = ArrayHistogram(
        "h", "text", ("model", "version"), bounds=(0.1, 1.0), registry=CollectorRegistry()
    )
    array.labels("m", "1").observe(np.array([0.1], dtype=np.float32))
    counts, _ = array.labels("m", "1").read()
    assert counts.tolist() == [1, 0, 0]


def test_values_put_aside_by_many_threads_are_all_counted() -> None:
    """Whoever adds and reads meanwhile, no value is lost or counted twice."""
    series = ArrayHistogram("h", "t", (), bounds=(0.5,), registry=CollectorRegistry()).labels()

    def add() -> None:
        for i in range(5_000):
            series.add(i % 2)
            if i % 100 == 0:
                series.read()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts, total = series.read()
    assert (counts.tolist(), total) == ([10_000, 10_000], 10_000)


def test_verdicts_are_counted_at_once() -> None:
    """Rows, anomalies and both histograms hold what the verdicts say."""
    metrics = Metrics(CollectorRegistry())
    metrics.model("m", 3).observe_verdicts(
        Verdicts(
            score=np.array([1, 2, 9], np.float32),
            normalized_score=np.array([0, 0.5, 1], np.float32),
            p_value=np.array([0.9, 0.4, 0.01], np.float32),
            is_anomaly=np.array([False, False, True]),
        )
    )
    labels = {"model": "m", "version": "3"}
    value = metrics.registry.get_sample_value
    assert value("amiss_rows_total", labels) == 3
    assert value("amiss_anomalies_total", labels) == 1
    assert value("amiss_score_normalized_bucket", {**labels, "le": "0.5"}) == 2
    assert value("amiss_p_value_sum", labels) == pytest.approx(1.31)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_holds_exactly_our_metrics_with_bounded_labels(served: Served) -> None:
    """Names are those of the design, labels are of the fixed set, whatever callers send."""
    async with httpx.AsyncClient(base_url=served.http) as client:
        assert (await client.post("/v1/detectors/made-up-name:score")).status_code == 404
        answer = await client.post("/v1/detectors/image:score", files={"images": b"no image"})
        assert answer.status_code == 400
        page = (await client.get(served.metrics)).text
    families = [
        f for f in text_string_to_metric_families(page) if not f.name.startswith("process_")
    ]
    assert {family.name for family in families} == NAMES
    samples = [sample for family in families for sample in family.samples]
    assert {key for sample in samples for key in sample.labels} <= LABELS
    assert "made-up-name" not in page
    asked = [s for s in samples if s.name == "amiss_requests_total" and s.labels["code"] == "400"]
    assert [(s.labels["model"], s.labels["protocol"], s.value) for s in asked] == [
        ("image", "http", 1)
    ]


@pytest.mark.asyncio(loop_scope="module")
async def test_readiness_is_a_number_too(served: Served, tmp_path: Path) -> None:
    """amiss_ready is 1 where /readyz is 200 and 0 where it is 503, here for want of a bundle."""
    async with serving(free_ports(tmp_path)) as empty, httpx.AsyncClient() as client:
        bare = Served(empty, tmp_path)
        for service, status, value in ((served, 200, "1.0"), (bare, 503, "0.0")):
            assert (await client.get(f"{service.http}/readyz")).status_code == status
            lines = (await client.get(service.metrics)).text.splitlines()
            assert f"amiss_ready {value}" in lines


@pytest.mark.asyncio(loop_scope="module")
async def test_a_broken_bundle_is_counted(tmp_path: Path) -> None:
    """amiss_refused_bundles is the number of bundles on disk that are not served."""
    version = write_table_bundle(tmp_path)
    (tmp_path / "table" / str(version) / "model.onnx").write_bytes(b"broken")
    async with serving(free_ports(tmp_path)) as addresses, httpx.AsyncClient() as client:
        page = (await client.get(f"http://{addresses.metrics}/metrics")).text
    assert "amiss_refused_bundles 1.0" in page.splitlines()


@pytest.mark.asyncio(loop_scope="module")
async def test_promtool_accepts_the_page(served: Served, tmp_path: Path) -> None:
    """`promtool check metrics` has nothing to complain about."""
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have promtool on its PATH (Debian package prometheus)")
        pytest.skip("promtool is not on this machine's PATH")
    async with httpx.AsyncClient() as client:
        page = (await client.get(served.metrics)).content
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
