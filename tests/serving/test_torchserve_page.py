"""Our own page beside TorchServe: metrics and probes."""

import os
import shutil
import subprocess

import httpx
import pytest

from amiss_export.errors import BadInput
from amiss_serving.errors import NotReady
from amiss_serving.torchserve.page import WorkerMetrics, build_page, serving_page


def test_the_page_counts_restarts_and_live_workers() -> None:
    """Both families have the model and its version; beside them is readiness, and nothing else."""
    metrics = WorkerMetrics()
    metrics.restarts.labels("digits", 3).inc()
    metrics.live.labels("digits", 3).set_function(lambda: 2)
    with serving_page(build_page(metrics, lambda: None), 0) as address:
        page = httpx.get(f"http://{address}/metrics").text
    samples = [line for line in page.splitlines() if not line.startswith("#")]
    assert samples == [
        'amiss_worker_restarts_total{model="digits",version="3"} 1.0',
        'amiss_live_workers{model="digits",version="3"} 2.0',
        "amiss_ready 1.0",
    ]


def test_readiness_fails_with_the_reason_while_liveness_does_not() -> None:
    """/readyz is 503 with the reason and a time to retry; /healthz stays 200."""

    def check_ready() -> None:
        raise NotReady("detector 'digits' has had no live worker for 3 s")

    with serving_page(build_page(WorkerMetrics(), check_ready), 0) as address:
        answer = httpx.get(f"http://{address}/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "amiss_ready 0.0" in httpx.get(f"http://{address}/metrics").text
        assert answer.json() == {"error": "detector 'digits' has had no live worker for 3 s"}
        assert httpx.get(f"http://{address}/healthz").status_code == 200


def test_a_port_in_use_is_named() -> None:
    """The error names the port and its option."""
    page = build_page(WorkerMetrics(), lambda: None)
    with serving_page(page, 0) as address:
        port = int(address.rpartition(":")[2])
        with (
            pytest.raises(BadInput, match=rf"port {port} .*--metrics-port"),
            serving_page(page, port),
        ):
            pass


def test_promtool_accepts_the_page() -> None:
    """`promtool check metrics` has nothing to complain about."""
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have promtool on its PATH (Debian package prometheus)")
        pytest.skip("promtool is not on this machine's PATH")
    metrics = WorkerMetrics()
    metrics.restarts.labels("digits", 3)
    with serving_page(build_page(metrics, lambda: None), 0) as address:
        page = httpx.get(f"http://{address}/metrics").content
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
