"""Prometheus histograms that cost little where they are fed: whole arrays, or values put aside."""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_MOST_ASIDE = 1_024  # values of a series that wait to be counted


class ArrayHistogram(Collector):
    """A histogram in the exposition format; labels(...) gives what to feed. Any thread may."""

    def __init__(
        self,
        name: str,
        text: str,
        labelnames: Sequence[str],
        *,
        bounds: Iterable[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._text = name, text
        self._labelnames = labelnames
        self._bounds = np.array(list(bounds))
        self._series: dict[tuple[str, ...], ArraySeries] = {}
        registry.register(self)

    def labels(self, *values: str) -> "ArraySeries":
        """The series with these labels; the same object each time."""
        return self._series.setdefault(values, ArraySeries(self._bounds))

    def collect(self) -> Iterable[Metric]:
        """The family as the exposition format wants it: cumulative counts by upper bound."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labelnames)
        bounds = [*map(floatToGoString, self._bounds.tolist()), "+Inf"]
        for labels, series in list(self._series.items()):
            counts, total = series.read()
            cumulative = np.cumsum(counts).tolist()
            family.add_metric(labels, list(zip(bounds, cumulative, strict=True)), total)
        return [family]


class ArraySeries:
    """Counts of values by bucket, the last beyond every bound."""

    def __init__(self, bounds: NDArray[np.float64]) -> None:
        # Scores are float32: compare like with like, or 0.1 would lie above the bound 0.1.
        self._bounds = bounds.astype(np.float32)
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._total = 0.0
        self._aside: deque[float] = deque()
        self._lock = threading.Lock()

    def observe(self, values: NDArray[Any]) -> None:
        """Count each of the values (n,) in the first bucket whose bound is not below it."""
        buckets = np.searchsorted(self._bounds, values, side="left")
        counts = np.bincount(buckets, minlength=len(self._counts))
        total = float(values.sum(dtype=np.float64))
        with self._lock:
            self._counts += counts
            self._total += total

    def add(self, value: float) -> None:
        """Count one value, when somebody reads or many have come together."""
        self._aside.append(value)
        if len(self._aside) >= _MOST_ASIDE:
            self._count_aside()

    def read(self) -> tuple[NDArray[np.int64], float]:
        """Counts (len(bounds) + 1,) and the sum of all values."""
        self._count_aside()
        with self._lock:
            return self._counts.copy(), self._total

    def _count_aside(self) -> None:
        self.observe(np.array(taken(self._aside), dtype=np.float64))


def taken(aside: deque[float]) -> list[float]:
    """What was put aside, taken out one by one: other threads may put and take meanwhile."""
    values: list[float] = []
    try:
        while True:
            values.append(aside.popleft())
    except IndexError:
        return values
