"""Counts and times of one version since the service started, in the protocol's terms.

Plain integers, written on several threads under a lock, read without.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_LOCK = threading.Lock()  # one for all: it is held for less time than it takes to choose one


@dataclass(slots=True)
class Duration:
    """How often, and for how many nanoseconds in total."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count what took so long."""
        ns = int(seconds * 1e9)
        with _LOCK:
            self.count += 1
            self.ns += ns


@dataclass(slots=True)
class Statistics:
    """One version's statistics. wall_clock: seconds since 1970.

    success and fail: requests, from arrival to answer. queue: requests, or their batch-sized
    parts, waiting. compute_input, compute_output: requests, decoding and encoding. compute_infer:
    runs of the model; batches: the same by rows in the run. inference_count: rows.
    """

    wall_clock: Callable[[], float] = time.time
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)
    inference_count: int = 0
    last_inference_ms: int = 0

    def add_rows(self, rows: int) -> None:
        """Count rows that were scored just now."""
        with _LOCK:
            self.inference_count += rows
        self.last_inference_ms = int(self.wall_clock() * 1000)

    def add_batch(self, rows: int, seconds: float) -> None:
        """Count one run of the model under its number of rows."""
        self.batches.setdefault(rows, Duration()).add(seconds)
