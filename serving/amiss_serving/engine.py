"""The hot path, top to bottom: validate, join a batch, await the slice.

A request's rows wait in their detector's lane. One task per lane takes what is queued whenever the
model is free (natural batching: the batch grows only while the model is busy), one thread per lane
runs the model, and every waiter gets its own slice, or its own error. All state lives on the event
loop; the thread sees only a list of members and returns a list of answers.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.decision import Verdicts
from amiss_export.decode import check_images, check_rows
from amiss_serving.detector import LoadedDetector, Scored
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._batch_delay_s = batch_delay_s
        self._max_queue_rows = max_queue_rows
        self._max_request_rows = max_request_rows
        self._clock = clock
        self._lanes: dict[LoadedDetector, _Lane] = {}
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
        return _joined(answers)

    async def close(self, limit_s: float = 0.0) -> None:
        """Refuse newcomers, let those who wait finish for limit_s, fail the rest, stop."""
        self._closed = True
        waiting = [answer for lane in self._lanes.values() for answer in lane.answers()]
        if waiting:
            await asyncio.wait(waiting, timeout=limit_s)
        for lane in self._lanes.values():
            lane.stop()
        self._lanes.clear()

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
                clock=self._clock,
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


class _Lane:
    """One detector's queue, bounded in rows, the task that empties it, the thread that computes."""

    def __init__(
        self,
        detector: LoadedDetector,
        metrics: ModelMetrics,
        *,
        max_batch_rows: int,
        batch_delay_s: float,
        max_queue_rows: int,
        clock: Callable[[], float],
    ) -> None:
        self._detector = detector
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._batch_delay_s = batch_delay_s
        self._max_queue_rows = max_queue_rows
        self._clock = clock
        self._waiting: OrderedDict[_Member, None] = OrderedDict()  # a queue one can leave in O(1)
        self._computing: list[_Member] = []
        self._rows = 0
        self._arrived = asyncio.Event()
        self._thread = self._new_thread()
        self._task = asyncio.create_task(self._run())

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
        loop, now = asyncio.get_running_loop(), self._clock()
        members = [
            _Member(part, reconstruct, deadline_s, now, loop.create_future()) for part in parts
        ]
        self._waiting.update(dict.fromkeys(members))
        self._count(n)
        self._arrived.set()
        return members

    def leave(self, members: Sequence[_Member]) -> None:
        """Forget members whose caller no longer waits, whatever state they are in."""
        for member in members:
            if member in self._waiting:
                del self._waiting[member]
                self._count(-len(member.x))
            if not member.answer.cancel() and not member.answer.cancelled():
                member.answer.exception()  # marks it as seen: asyncio warns of errors nobody read

    def answers(self) -> list[asyncio.Future[Scored]]:
        """The answers that somebody still waits for."""
        members = (*self._waiting, *self._computing)
        return [member.answer for member in members if not member.answer.done()]

    def stop(self) -> None:
        """End task and thread; whoever still waits is told."""
        self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
        for answer in self.answers():
            answer.set_exception(NotReady("the service stopped before the rows were scored"))

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self._batch_delay_s and self._rows < self._max_batch_rows:
                await asyncio.sleep(self._batch_delay_s)
            batch = self._take()
            if not batch:
                continue
            try:
                await self._compute(batch)
            except Exception as error:  # not the rows: the model's thread, or the code around it
                self._restart(batch, error)

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
        if not self._waiting:
            self._arrived.clear()
        return batch

    def _restart(self, batch: list[_Member], error: Exception) -> None:
        """Tell the batch, take a new thread, go on: a queue nobody empties would be silent."""
        logger.error("compute worker restarted", exc_info=error)
        self._metrics.worker_restarts.inc()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._thread = self._new_thread()
        self._computing = []
        for member in batch:
            if not member.answer.done():
                member.answer.set_exception(error)

    def _new_thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix=f"compute-{self._detector.name}")

    async def _compute(self, batch: list[_Member]) -> None:
        started = self._clock()
        for member in batch:
            self._metrics.phases["queue"].observe(started - member.joined_s)
        self._metrics.batch_rows.observe(sum(len(member.x) for member in batch))
        self._computing = batch
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._thread, _score, self._detector, batch)
        self._computing = []
        self._metrics.phases["compute"].observe(self._clock() - started)
        for member, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Scored):
                self._metrics.observe_verdicts(answer.verdicts)
            if member.answer.done():  # its caller left while the model ran
                continue
            if isinstance(answer, Scored):
                member.answer.set_result(answer)
            else:
                member.answer.set_exception(answer)

    def _count(self, rows: int) -> None:
        self._rows += rows
        self._metrics.queue_rows.set(self._rows)


def _score(detector: LoadedDetector, batch: list[_Member]) -> list[Scored | Exception]:
    """One answer per member. Runs in the lane's thread.

    When a batch fails its members run alone, so that only the one at fault sees the error.
    """
    try:
        x = batch[0].x if len(batch) == 1 else np.concatenate([member.x for member in batch])
        scored = detector.score(x, reconstruct=any(member.reconstruct for member in batch))
    except Exception as error:
        if len(batch) == 1:
            return [error]
        return [answer for member in batch for answer in _score(detector, [member])]
    answers: list[Scored | Exception] = []
    start = 0
    for member in batch:
        stop = start + len(member.x)
        answers.append(_sliced(scored, start, stop, reconstruct=member.reconstruct))
        start = stop
    return answers


def _sliced(scored: Scored, start: int, stop: int, *, reconstruct: bool) -> Scored:
    v, r = scored.verdicts, scored.reconstruction
    verdicts = Verdicts(
        score=v.score[start:stop],
        normalized_score=v.normalized_score[start:stop],
        p_value=v.p_value[start:stop],
        is_anomaly=v.is_anomaly[start:stop],
    )
    return Scored(verdicts, r[start:stop] if reconstruct and r is not None else None)


def _joined(parts: list[Scored]) -> Scored:
    if len(parts) == 1:
        return parts[0]
    verdicts = [part.verdicts for part in parts]
    reconstructions = [part.reconstruction for part in parts if part.reconstruction is not None]
    return Scored(
        Verdicts(
            score=np.concatenate([v.score for v in verdicts]),
            normalized_score=np.concatenate([v.normalized_score for v in verdicts]),
            p_value=np.concatenate([v.p_value for v in verdicts]),
            is_anomaly=np.concatenate([v.is_anomaly for v in verdicts]),
        ),
        np.concatenate(reconstructions) if reconstructions else None,
    )


def _checked(x: NDArray[Any], spec: ImageInput | TableInput, *, most: int) -> NDArray[Any]:
    if len(x) > most:
        raise TooLarge(f"a request may hold {most} rows, got {len(x)}; split it")
    return check_images(x, spec) if isinstance(spec, ImageInput) else check_rows(x, spec)
