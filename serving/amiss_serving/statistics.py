"""Counts and times of one version since the service started, in the protocol's terms.

Plain integers, written on several threads under a lock, read without.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from amiss_serving.histograms import taken

_MOST_ASIDE = 1_024
_LOCK = threading.Lock()  # one for all: it is held for less time than it takes to choose one


class Duration:
    """How often, and for how many nanoseconds in total."""

    __slots__ = ("_aside", "_count", "_ns")

    def __init__(self, count: int = 0, ns: int = 0) -> None:
        self._count, self._ns = count, ns
        self._aside: deque[float] = deque()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.read() == other.read()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return "Duration(count={}, ns={})".format(*self.read())

    def add(self, seconds: float) -> None:
        """Count what took so long, when somebody reads or many have come together."""
        self._aside.append(seconds)
        if len(self._aside) >= _MOST_ASIDE:
            self.read()

    def read(self) -> tuple[int, int]:
        """Count and nanoseconds."""
        values = taken(self._aside)
        with _LOCK:
            self._count += len(values)
            self._ns += sum(int(value * 1e9) for value in values)
            return self._count, self._ns


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
