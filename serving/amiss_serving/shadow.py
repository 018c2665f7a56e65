"""Shadow traffic: a share of what a default version answered, scored by its canary and compared.

The copies run in a thread of their own, apart from the engine: they wait in no caller's queue, and
a canary that fails or hangs takes nobody with it. Both versions run on the same rows, one after the
other, so that their times compare.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_export.labels import CANARY
from amiss_serving.detector import LoadedDetector
from amiss_serving.errors import DetectorNotFound
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copy:
    """Rows (n, ...) that `default` has answered, for its canary."""

    default: LoadedDetector
    canary: LoadedDetector
    x: NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """What both versions said of n rows: |normalized difference| (n,), and seconds of each run."""

    differences: NDArray[np.float32]
    disagreements: int
    default_s: float
    canary_s: float


class Shadow:
    """Copies requests to canaries. Make it, use it and close it on one event loop.

    share: of the requests that a name's default version answered, 0 to 1. max_rows: rows of copies
    under way at most; of a request that does not fit the first rows are copied, or none.
    """

    def __init__(
        self,
        repository: DetectorRepository,
        metrics: Metrics,
        *,
        share: float,
        max_rows: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._repository = repository
        self._metrics = metrics
        self._share = share
        self._free_rows = max_rows
        self._draw = draw
        self._told: WeakSet[LoadedDetector] = WeakSet()
        self._copies: SimpleQueue[Copy | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(
            target=_work, args=(self._copies, self._loop, self._finish), name="shadow", daemon=True
        ).start()

    def offer(self, detector: LoadedDetector, x: NDArray[Any]) -> None:
        """Copy rows that the detector has answered, if it is their turn and there is room."""
        if self._draw() >= self._share:
            return
        canary = self._canary_of(detector)
        x = x[: self._free_rows]
        if canary is None or len(x) == 0:
            return
        self._free_rows -= len(x)
        # Not in this turn of the loop: the one that called has an answer to send first.
        self._loop.call_soon(self._copies.put, Copy(detector, canary, x))

    def close(self) -> None:
        """End the thread once it is free."""
        self._copies.put(None)

    def _canary_of(self, detector: LoadedDetector) -> LoadedDetector | None:
        """The canary beside the detector, when the detector is what its name means."""
        with suppress(DetectorNotFound):
            if self._repository.resolve(detector.name) is detector:
                canary = self._repository.resolve(detector.name, CANARY)
                return None if canary is detector else canary
        return None

    def _finish(self, copy: Copy, outcome: Comparison | Exception) -> None:
        self._free_rows += len(copy.x)
        default, canary = copy.default, copy.canary
        if isinstance(outcome, Comparison):
            self._metrics.observe_shadow(
                canary.name,
                canary.version,
                differences=outcome.differences,
                disagreements=outcome.disagreements,
                runs_s={default.version: outcome.default_s, canary.version: outcome.canary_s},
            )
            return
        self._metrics.shadow_errors.labels(canary.name, str(canary.version)).inc()
        if canary not in self._told:  # once: the counter has how often
            self._told.add(canary)
            fields = {"detector": canary.name, "version": canary.version}
            logger.warning("a canary failed on a copy", exc_info=outcome, extra={"fields": fields})


def compare(copy: Copy) -> Comparison:
    """Both versions' word on the rows. Raises BadInput when they do not take the same input."""
    if copy.default.spec != copy.canary.spec:
        raise BadInput(
            f"{copy.canary.name}@{copy.canary.version} does not take the input of version "
            f"{copy.default.version}; their requests cannot be compared"
        )
    started_s = time.perf_counter()
    default = copy.default.score(copy.x).verdicts
    between_s = time.perf_counter()
    canary = copy.canary.score(copy.x).verdicts
    ended_s = time.perf_counter()
    return Comparison(
        differences=np.abs(canary.normalized_score - default.normalized_score),
        disagreements=int(np.count_nonzero(canary.is_anomaly != default.is_anomaly)),
        default_s=between_s - started_s,
        canary_s=ended_s - between_s,
    )


def _work(
    copies: "SimpleQueue[Copy | None]",
    loop: asyncio.AbstractEventLoop,
    finish: Callable[[Copy, Comparison | Exception], None],
) -> None:
    while (copy := copies.get()) is not None:
        try:
            outcome: Comparison | Exception = compare(copy)
        except Exception as error:  # a canary may do anything
            outcome = error
        with suppress(RuntimeError):  # the loop is closed: nobody counts any more
            loop.call_soon_threadsafe(finish, copy, outcome)
