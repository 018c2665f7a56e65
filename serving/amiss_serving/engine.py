"""The hot path, top to bottom: validate, join a batch, await the slice.

A request's rows wait in their detector's lane. Whenever one of the lane's threads is free it takes
what is queued (natural batching: a batch grows only while the model is busy), runs the model, and
every waiter gets its own slice, or its own error. All state lives on the event loop; a thread sees
one run at a time and fills in its answers. Detectors share nothing but the processor: each has its
own bounded queue and threads, so that none can hold up another.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.decision import Verdicts
from amiss_export.decode import check_images, check_rows
from amiss_serving.detector import LoadedDetector, Scored, joined
from amiss_serving.errors import DeadlineExceeded, NotReady, QueueFull, TooLarge
from amiss_serving.metrics import Metrics, ModelMetrics

logger = logging.getLogger(__name__)


class Engine:
    """Scores requests in batches. Make it, use it and close it on one event loop."""

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
        self._lanes: dict[LoadedDetector, _Lane] = {}
        self._retired: WeakSet[LoadedDetector] = WeakSet()
        self._closed = False

    async def score(
        self,
        detector: LoadedDetector,
        x: NDArray[Any],
        *,
        deadline_s: float,
        reconstruct: bool = False,
    ) -> Scored:
        """Verdicts for the rows of x, in order: uint8 (n, c, h, w) or float32 (n, d).

        deadline_s: moment on the engine's clock after which nobody waits for the answer.
        Raises BadInput, TooLarge, QueueFull, DeadlineExceeded or NotReady, or what the model
        raised on these rows. A cancelled caller's rows are not computed if they still wait.
        """
        x = _checked(x, detector.spec, most=self._max_request_rows)
        lane = self._lane(detector)
        most = self._max_batch_rows
        parts = [x[i : i + most] for i in range(0, len(x), most)]
        members = lane.join(parts, reconstruct=reconstruct, deadline_s=deadline_s)
        try:
            async with asyncio.timeout(deadline_s - self._clock()):
                answers = [await member.answer for member in members]
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the rows were scored") from error
        finally:
            lane.leave(members)
        return answers[0] if len(answers) == 1 else joined(answers)

    def check_alive(self) -> None:
        """Nothing, while every model comes back. Raises NotReady naming one that does not."""
        for detector, lane in self._lanes.items():
            taken_s = lane.longest_run_s()
            if taken_s > self._stalled_after_s:
                raise NotReady(
                    f"a run of {detector.name}@{detector.version} has taken {taken_s:.0f} s and "
                    f"counts as stalled after {self._stalled_after_s:g} s; if it is only slow, "
                    "lower max_batch_rows or raise stalled_after_s, else restart the service"
                )

    def retire(self, detector: LoadedDetector) -> None:
        """End the detector's threads once nobody waits for them.

        Requests that found it before it was swapped out are answered, even those yet to join.
        """
        self._retired.add(detector)
        self._rest(detector)

    async def close(self, limit_s: float = 0.0) -> None:
        """Refuse newcomers, let those who wait finish for limit_s, fail the rest, stop."""
        self._closed = True
        waiting = [answer for lane in self._lanes.values() for answer in lane.answers()]
        if waiting:
            await asyncio.wait(waiting, timeout=limit_s)
        for lane in self._lanes.values():
            lane.stop()
        self._lanes.clear()

    def _rest(self, detector: LoadedDetector) -> None:
        """Close the lane of a retired detector if it is idle."""
        if detector in self._retired and detector in self._lanes and self._lanes[detector].is_idle:
            self._lanes.pop(detector).stop()

    def _lane(self, detector: LoadedDetector) -> "_Lane":
        if self._closed:
            raise NotReady("the service is stopping; ask another replica")
        lane = self._lanes.get(detector)
        if lane is None:
            lane = self._lanes[detector] = _Lane(
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


@dataclass(eq=False, slots=True)
class _Member:
    """One request's rows, or a batch-sized part of them, on their way to an answer."""

    x: NDArray[Any]
    reconstruct: bool
    deadline_s: float
    joined_s: float
    answer: asyncio.Future[Scored]


@dataclass(eq=False, slots=True)
class _Run:
    """One run of the model: whom it is for, when it began, what came of it."""

    members: list[_Member]
    started_s: float
    answers: list[Scored | Exception] = field(default_factory=list)
    verdicts: list[Verdicts] = field(default_factory=list)  # of all its rows, for the metrics
    failure: Exception | None = None  # not of the rows, but of the code around the model


class _Lane:
    """One detector's queue, bounded in rows, and the threads that run its model."""

    def __init__(
        self,
        detector: LoadedDetector,
        metrics: ModelMetrics,
        *,
        max_batch_rows: int,
        batch_delay_s: float,
        max_queue_rows: int,
        parallel_runs: int,
        clock: Callable[[], float],
        rest: Callable[[LoadedDetector], None],
    ) -> None:
        self._detector = detector
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._batch_delay_s = batch_delay_s
        self._max_queue_rows = max_queue_rows
        self._clock = clock
        self._rest = rest
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[_Member, None] = OrderedDict()  # a queue one can leave in O(1)
        self._rows = 0
        self._runs: dict[_Run, _Worker] = {}
        self._idle = [self._new_worker() for _ in range(parallel_runs)]
        self._is_due = False  # whether `_start` is already to be called
        self._is_stopped = False

    def join(
        self, parts: Sequence[NDArray[Any]], *, reconstruct: bool, deadline_s: float
    ) -> list[_Member]:
        """Queue all parts or none. Raises QueueFull."""
        n = sum(map(len, parts))
        if self._rows + n > self._max_queue_rows:
            raise QueueFull(
                f"detector {self._detector.name!r} has {self._rows} rows waiting and takes "
                f"{self._max_queue_rows}; {n} more do not fit now, try again in a moment"
            )
        now = self._clock()
        members = [
            _Member(part, reconstruct, deadline_s, now, self._loop.create_future())
            for part in parts
        ]
        self._waiting.update(dict.fromkeys(members))
        self._count(n)
        self._wake()
        return members

    def leave(self, members: Sequence[_Member]) -> None:
        """Forget members whose caller no longer waits, whatever state they are in."""
        for member in members:
            if member in self._waiting:
                del self._waiting[member]
                self._count(-len(member.x))
            if not member.answer.cancel() and not member.answer.cancelled():
                member.answer.exception()  # marks it as seen: asyncio warns of errors nobody read
        if self.is_idle:
            self._rest(self._detector)

    def answers(self) -> list[asyncio.Future[Scored]]:
        """The answers that somebody still waits for."""
        computing = (member for run in self._runs for member in run.members)
        members = (*self._waiting, *computing)
        return [member.answer for member in members if not member.answer.done()]

    @property
    def is_idle(self) -> bool:
        """Whether no rows wait and none are computed."""
        return not self._waiting and not self._runs

    def longest_run_s(self) -> float:
        """How long the run that began first has taken until now; 0 without any."""
        return max((self._clock() - run.started_s for run in self._runs), default=0.0)

    def stop(self) -> None:
        """End the threads; whoever still waits is told."""
        self._is_stopped = True
        for answer in self.answers():
            answer.set_exception(NotReady("the service stopped before the rows were scored"))
        self._waiting.clear()
        self._count(-self._rows)
        for worker in (*self._idle, *self._runs.values()):
            worker.stop()

    def _wake(self) -> None:
        """Have `_start` called: after this turn of the loop, so that what arrives in it goes along,
        or after the delay that was asked for, unless a batch is full."""
        if self._is_due or not self._idle:
            return
        self._is_due = True
        if self._batch_delay_s and self._rows < self._max_batch_rows:
            self._loop.call_later(self._batch_delay_s, self._start)
        else:
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        """Start runs while rows wait and a thread is free."""
        self._is_due = False
        while self._waiting and self._idle:
            members = self._take()
            if not members:
                continue
            run = _Run(members, self._clock())
            for member in members:
                self._metrics.phases["queue"].observe(run.started_s - member.joined_s)
            self._metrics.batch_rows.observe(sum(len(member.x) for member in members))
            worker = self._runs[run] = self._idle.pop()
            worker.begin(run)

    def _take(self) -> list[_Member]:
        """The next batch, first come first served. Those past their deadline are told, not run."""
        batch: list[_Member] = []
        rows, now = 0, self._clock()
        while self._waiting:
            member = next(iter(self._waiting))
            if rows + len(member.x) > self._max_batch_rows:
                break
            del self._waiting[member]
            self._count(-len(member.x))
            if member.answer.done():  # cancelled, and its caller has not come round to leave yet
                continue
            if member.deadline_s <= now:
                member.answer.set_exception(DeadlineExceeded("the deadline passed in the queue"))
                continue
            batch.append(member)
            rows += len(member.x)
        return batch

    def _finish(self, run: _Run) -> None:
        """Hand out the answers, take the thread back and go on."""
        worker = self._runs.pop(run)
        if self._is_stopped:
            return
        if run.failure is None:
            self._metrics.phases["compute"].observe(self._clock() - run.started_s)
            for verdicts in run.verdicts:
                self._metrics.observe_verdicts(verdicts)
        else:
            logger.error("compute worker restarted", exc_info=run.failure)
            self._metrics.worker_restarts.inc()
            run.answers = [run.failure] * len(run.members)
            worker.stop()
            worker = self._new_worker()
        for member, answer in zip(run.members, run.answers, strict=True):
            if member.answer.done():  # its caller left while the model ran
                continue
            if isinstance(answer, Scored):
                member.answer.set_result(answer)
            else:
                member.answer.set_exception(answer)
        self._idle.append(worker)
        if self._waiting:
            self._wake()
        elif self.is_idle:
            self._rest(self._detector)

    def _new_worker(self) -> "_Worker":
        return _Worker(self._detector, self._loop, self._finish)

    def _count(self, rows: int) -> None:
        self._rows += rows
        self._metrics.queue_rows.set(self._rows)


class _Worker:
    """A thread that computes one run after another. It ends with the process, even in a run."""

    def __init__(
        self,
        detector: LoadedDetector,
        loop: asyncio.AbstractEventLoop,
        finish: Callable[[_Run], None],
    ) -> None:
        self._runs: SimpleQueue[_Run | None] = SimpleQueue()
        threading.Thread(
            target=_work,
            args=(self._runs, detector, loop, finish),
            name=f"compute-{detector.name}",
            daemon=True,
        ).start()

    def begin(self, run: _Run) -> None:
        """Compute the run; `finish` is called with it on the loop."""
        self._runs.put(run)

    def stop(self) -> None:
        """End the thread once it is free."""
        self._runs.put(None)


def _work(
    runs: "SimpleQueue[_Run | None]",
    detector: LoadedDetector,
    loop: asyncio.AbstractEventLoop,
    finish: Callable[[_Run], None],
) -> None:
    while (run := runs.get()) is not None:
        try:
            _score(detector, run, run.members)
        except Exception as error:
            run.failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, run)


def _score(detector: LoadedDetector, run: _Run, members: list[_Member]) -> None:
    """One answer per member into the run. Runs in a worker's thread.

    When a batch fails its members run alone, so that only the one at fault sees the error.
    """
    try:
        x = members[0].x if len(members) == 1 else np.concatenate([member.x for member in members])
        scored = detector.score(x, reconstruct=any(member.reconstruct for member in members))
    except Exception as error:
        if len(members) == 1:
            run.answers.append(error)
            return
        for member in members:
            _score(detector, run, [member])
        return
    start = 0
    for member in members:
        stop = start + len(member.x)
        run.answers.append(scored.part(start, stop, reconstruct=member.reconstruct))
        start = stop
    run.verdicts.append(scored.verdicts)


def _checked(x: NDArray[Any], spec: ImageInput | TableInput, *, most: int) -> NDArray[Any]:
    if len(x) > most:
        raise TooLarge(f"a request may hold {most} rows, got {len(x)}; split it")
    return check_images(x, spec) if isinstance(spec, ImageInput) else check_rows(x, spec)
