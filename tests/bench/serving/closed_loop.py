"""Requests a second and latencies of callers who wait for their answers, by h2load.

h2load comes with nghttp2 (Debian: nghttp2-client). Its log of each request is read, not its
summary: percentiles need every latency.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from .doors import Door, Request

CONNECTIONS = 8  # of HTTP/2 at most: a service has a few channels, not one a request
# h2load reads no status where HTTP/1.1 gives no reason after it, as with TorchServe.
GOOD_STATUS = (200, 0)
Floats = NDArray[np.float64]


class Done(Protocol):
    """What an answer is reported to."""

    def __call__(self, index: int, *, ok: bool, size: int) -> None: ...


@dataclass(frozen=True)
class Window:
    """One measured stretch. latency_ms: of each answer; failed: anything but a good answer."""

    requests_per_s: float
    latency_ms: Floats
    answered: int  # in all, warm-up included: what the server's CPU time is divided by
    failed: int
    answer_bytes: float  # of a body, on average: an error over gRPC has none
    late_p99_ms: float  # how late the generator itself was; 0 in a closed loop
    load_cpu_share: float  # of one core, taken by the generator


@dataclass(frozen=True)
class Log:
    """h2load's log, in the order of the starts: (n,) each, seconds."""

    start_s: Floats
    duration_s: Floats
    ok: NDArray[np.bool_]


def closed_loop(
    door: Door, request: Request, *, in_flight: int, seconds: float, warm_up_s: float
) -> Window:
    """Each caller asks again as soon as it is answered."""
    connections = min(in_flight, CONNECTIONS) if door.http2 else in_flight
    streams = in_flight // connections
    options = ["-c", connections, "-m", streams, "-D", f"{(warm_up_s + seconds) * 1000:.0f}ms"]
    log, summary, cpu_s = h2load(door, request, [*map(str, options), door.url])
    end_s = log.start_s + log.duration_s
    first = log.start_s.min() + warm_up_s
    counted = log.ok & (end_s >= first)
    spent = end_s.max() - first
    return Window(
        requests_per_s=float(counted.sum() / spent),
        latency_ms=log.duration_s[counted] * 1000,
        answered=int(log.ok.sum()),
        failed=int((~log.ok).sum()),
        answer_bytes=data_bytes(summary) / max(1, len(log.ok)),
        late_p99_ms=0.0,
        load_cpu_share=cpu_s / (warm_up_s + seconds),
    )


def parse_log(text: str) -> Log:
    """h2load's --log-file: microseconds since the epoch, HTTP status, microseconds; tabs."""
    if not text.strip():
        raise RuntimeError("expected h2load's log of requests, got none: nothing was answered")
    table = np.array(text.split(), dtype=np.float64).reshape(-1, 3)
    table = table[table[:, 0].argsort(kind="stable")]
    return Log(table[:, 0] / 1e6, table[:, 2] / 1e6, np.isin(table[:, 1], GOOD_STATUS))


def data_bytes(summary: str) -> int:
    """Bytes of all bodies that came back, of h2load's line `traffic: ... (N) data`."""
    found = re.search(r"^traffic:.*\((\d+)\) data$", summary, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"expected a line 'traffic: ... (N) data' of h2load, got {summary!r}")
    return int(found.group(1))


def h2load(door: Door, request: Request, options: Sequence[str]) -> tuple[Log, str, float]:
    """The log, the printed summary and the CPU seconds of one run."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(request.body)
        command = ["h2load", "-d", str(body), "--log-file", str(log)]
        command += [] if door.http2 else ["--h1"]
        for key, value in request.headers.items():
            command += ["-H", f"{key}: {value}"]
        before = psutil.Process().cpu_times()
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        after = psutil.Process().cpu_times()
        if done.returncode != 0:
            raise RuntimeError(f"h2load failed on {door.url}: {done.stderr or done.stdout}")
        cpu_s = sum(after[2:4]) - sum(before[2:4])  # of children, user and system
        return parse_log(log.read_text()), done.stdout, cpu_s
