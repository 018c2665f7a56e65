"""The hot path, top to bottom: validate, join a batch, compute, hand each request its slice.

A request's rows wait in their detector's lane. Whenever one of the lane's threads is free it takes
what is queued (natural batching: a batch grows only while the model is busy), runs the model, and
calls every request back with its own rows' answer, or its own error: `lane.py`. Doors call from any
thread and never wait; who has an event loop awaits `score`. Detectors share nothing but the
processor: each has its own bounded queue and threads, so that none can hold up another.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from numpy.typing import NDArray

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.decode import check_images, check_rows
from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.errors import DeadlineExceeded, NotReady, TooLarge
from amiss_serving.lane import Lane
from amiss_serving.metrics import Metrics
from amiss_serving.runs import Done, Request, Result
from amiss_serving.turn import Turn


class Ticket:
    """A request on its way. Cancel it when nobody waits for the answer any more."""

    __slots__ = ("_lane", "_request")

    def __init__(self, lane: Lane, request: Request) -> None:
        self._lane, self._request = lane, request

    def cancel(self) -> bool:
        """Forget the request: rows that wait are not computed, and `done` is not called.

        False when it is over already, so that `done` was called or is about to be.
        """
        return not self._request.is_over and self._lane.leave(self._request)


class Engine:
    """Scores requests in batches, for callers on any thread."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        max_batch_rows: int = 256,
        batch_delay_s: float = 0.0,
        max_queue_rows: int = 16_384,
        max_request_rows: int = 8_192,
        parallel_runs: int = 1,
        stalled_after_s: float = 4.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._batch_delay_s = batch_delay_s
        self._max_queue_rows = max_queue_rows
        self._max_request_rows = max_request_rows
        self._parallel_runs = parallel_runs
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._lock = threading.Lock()  # guards the two below; never taken inside a lane's own
        self._lanes: dict[LoadedDetector, Lane] = {}
        self._retired: WeakSet[LoadedDetector] = WeakSet()
        self._closed = False

    def submit(
        self,
        detector: LoadedDetector,
        x: NDArray[Any],
        *,
        deadline_s: float,
        done: Done,
        reconstruct: bool = False,
        turn: Turn | None = None,
    ) -> "Ticket":
        """Queue the rows of x, uint8 (n, c, h, w) or float32 (n, d); `done` gets their verdicts.

        done is called once, from another thread or at the end of the turn: with Scored in the order
        of the rows, with DeadlineExceeded or NotReady, or with what the model raised on these rows.
        It must not block. deadline_s: moment on the engine's clock after which nobody waits for it.
        turn: the one of the caller's thread, which then runs the model itself where that is quick.
        Raises BadInput, TooLarge, QueueFull or NotReady; then nothing is queued.
        """
        x = _checked(x, detector.spec, most=self._max_request_rows)
        most = self._max_batch_rows
        parts = [x] if len(x) <= most else [x[i : i + most] for i in range(0, len(x), most)]
        request = Request(done, deadline_s, [None] * len(parts))
        while not (lane := self._lane(detector)).join(
            request, parts, reconstruct=reconstruct, turn=turn
        ):
            pass  # retired this very moment: the next one is a lane of our own
        return Ticket(lane, request)

    def check_room(self, detector: LoadedDetector) -> None:
        """Nothing, while a row would fit into the detector's queue. Raises QueueFull.

        Under overload a request is then refused before it is decoded, which takes most of its time.
        """
        lane = self._lanes.get(detector)
        if lane is not None:
            lane.check_room(1)

    async def score(
        self,
        detector: LoadedDetector,
        x: NDArray[Any],
        *,
        deadline_s: float,
        reconstruct: bool = False,
    ) -> Scored:
        """What `submit` hands to `done`, raised where it is an error.

        A cancelled caller's rows are not computed if they still wait.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()

        def settle(result: Result) -> None:
            if not answer.done():
                answer.set_result(result)

        def done(result: Result) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result)

        ticket = self.submit(detector, x, deadline_s=deadline_s, done=done, reconstruct=reconstruct)
        try:
            async with asyncio.timeout(deadline_s - self._clock()):
                result = await answer
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the rows were scored") from error
        finally:
            ticket.cancel()
        if not isinstance(result, Exception):
            return result
        try:
            raise result
        finally:
            del result  # it knows this frame: a cycle for the garbage collector

    def check_alive(self) -> None:
        """Nothing, while every model comes back. Raises NotReady naming one that does not."""
        for detector, lane in self._all():
            taken_s = lane.longest_run_s()
            if taken_s > self._stalled_after_s:
                raise NotReady(
                    f"a run of {detector.name}@{detector.version} has taken {taken_s:.0f} s and "
                    f"counts as stalled after {self._stalled_after_s:g} s; if it is only slow, "
                    "lower max_batch_rows or raise stalled_after_s, else restart the service"
                )

    def expire(self) -> None:
        """Tell whoever waits past the deadline, though the model has not come back."""
        for _, lane in self._all():
            lane.expire()

    def retire(self, detector: LoadedDetector) -> None:
        """End the detector's threads once nobody waits for them.

        Requests that found it before it was swapped out are answered, even those yet to join.
        """
        with self._lock:
            self._retired.add(detector)
        self._rest(detector)

    async def close(self, limit_s: float = 0.0) -> None:
        """Refuse newcomers, let those who wait finish for limit_s, fail the rest, stop."""
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while any(not lane.is_idle for _, lane in self._all()):
                    await asyncio.sleep(0.005)
        for _, lane in self._all():
            lane.stop()

    def _all(self) -> list[tuple[LoadedDetector, Lane]]:
        with self._lock:
            return list(self._lanes.items())

    def _rest(self, detector: LoadedDetector) -> None:
        """Close the lane of a retired detector if it is idle."""
        if detector not in self._retired:
            return
        with self._lock:
            lane = self._lanes.get(detector)
            if lane is None or not lane.stop_if_idle():
                return
            del self._lanes[detector]

    def _lane(self, detector: LoadedDetector) -> Lane:
        if self._closed:
            raise NotReady("the service is stopping; ask another replica")
        lane = self._lanes.get(detector)
        if lane is not None:
            return lane
        with self._lock:
            lane = self._lanes.get(detector)
            if lane is None:
                lane = self._lanes[detector] = Lane(
                    detector,
                    self._metrics.model(detector.name, detector.version),
                    max_batch_rows=self._max_batch_rows,
                    batch_delay_s=self._batch_delay_s,
                    max_queue_rows=self._max_queue_rows,
                    parallel_runs=self._parallel_runs,
                    clock=self._clock,
                    rest=self._rest,
                )
            return lane


def _checked(x: NDArray[Any], spec: ImageInput | TableInput, *, most: int) -> NDArray[Any]:
    if len(x) > most:
        raise TooLarge(f"a request may hold {most} rows, got {len(x)}; split it")
    return check_images(x, spec) if isinstance(spec, ImageInput) else check_rows(x, spec)
