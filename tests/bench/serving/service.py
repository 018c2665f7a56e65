"""`amiss serve` in a process of its own: its doors, what it counts, the memory it holds."""

import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from prometheus_client.parser import text_string_to_metric_families

from . import doors
from .doors import Door
from .models import Model
from .peers.base import HOST, free_ports
from .processes import answers, running, wait_until

Counts = Counter[tuple[str, str, str]]  # requests by protocol, method and code
SETTLED_S = 0.3  # an answer is counted, and memory given back, just after it was sent
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """A service that is ready. page: the URL of its metrics."""

    process: psutil.Process
    page: str
    oip_grpc: Door
    oip_http: Door
    oip_json: Door
    amiss_v1: Door

    def rss_mb(self) -> float:
        """MB that the process holds now."""
        return float(self.process.memory_info().rss) / 2**20

    def cpu_s(self) -> float:
        """User and system seconds of the process so far."""
        return float(sum(self.process.cpu_times()[:2]))

    def counts(self) -> Counts:
        """Requests answered so far, by a scrape of its metrics."""
        with urllib.request.urlopen(self.page, timeout=10) as answer:  # noqa: S310  loopback
            return counts_of(answer.read().decode())


@contextmanager
def amiss_service(model: Model, scratch: Path, options: Sequence[object]) -> Iterator[Service]:
    """The service with these options and one compute thread; its log goes into scratch."""
    http, grpc, metrics = free_ports(3)
    command = [sys.executable, "-m", "amiss_cli.main", "serve", "--models", model.models]
    command += ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]
    command += ["--threads", 1, "--device", "cpu", "--log-level", "error", *options]
    with running(command, log=scratch / "amiss.log", cwd=scratch) as tree:
        wait_until(lambda: answers(f"http://{HOST}:{http}/readyz"), tree)
        yield Service(
            psutil.Process(tree.root.pid),
            page=f"http://{HOST}:{metrics}/metrics",
            oip_grpc=doors.oip_grpc(f"{HOST}:{grpc}"),
            oip_http=doors.oip_http(f"{HOST}:{http}"),
            oip_json=doors.oip_json(f"{HOST}:{http}"),
            amiss_v1=doors.amiss_v1(f"{HOST}:{grpc}"),
        )


def protocol(door: Door) -> str:
    """As the service's metrics call it."""
    return "grpc" if door.http2 else "http"


def method(door: Door) -> str:
    """As the service's metrics call it: what both doors here have is the OIP's over HTTP."""
    return door.url.rsplit("/", 1)[1] if door.http2 else "ModelInfer"


@contextmanager
def every(seconds: float, look: Callable[[], T]) -> Iterator[list[tuple[float, T]]]:
    """A list that grows by (moment of perf_counter, what `look` returned) until the way out."""
    seen: list[tuple[float, T]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            now = time.perf_counter()
            seen.append((now, look()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def counts_of(page: str) -> Counts:
    """The samples of amiss_requests_total on a Prometheus page, models and versions added up."""
    counts: Counts = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "amiss_requests_total":
                labels = sample.labels
                key = (labels["protocol"], labels["method"], labels["code"])
                counts[key] += int(sample.value)
    return counts
