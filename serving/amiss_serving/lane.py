"""One detector's queue and the threads that run its model: the second half of the hot path."""

import logging
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.devices import CPU
from amiss_serving.errors import DeadlineExceeded, NotReady, QueueFull
from amiss_serving.metrics import ModelMetrics
from amiss_serving.runs import Member, Request, Result, Run, score_run, whole
from amiss_serving.turn import Turn

# Requests that take no longer are run by the thread of a door: waking another for each would cost
# as much as they do. What takes longer is computed while the door reads on.
QUICK_S = 0.001
# What a run gathers there, and everywhere on a processor: longer ones are no faster a row (they
# outgrow its caches), and everybody in them waits for the last. Other devices get all that waits.
LONG_RUN_S = 0.004
logger = logging.getLogger(__name__)


class Lane:
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
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Member, None] = OrderedDict()  # a queue one can leave in O(1)
        self._rows = 0
        self._earliest_s = math.inf  # no deadline of those under way is earlier
        self._runs: set[Run] = set()
        self._is_stopped = False
        self._bell: SimpleQueue[None] = SimpleQueue()  # one ring wakes one thread
        self._is_full = threading.Event()
        self._idle = self._threads = parallel_runs  # idle: runs that may begin
        self._row_s = {False: math.inf, True: math.inf}  # in the last run, without and with
        runtime = detector.runtime
        self._may_run_here = not runtime.is_remote  # a run there is a wait, however short
        self._gathers_all = runtime.is_remote or runtime.device != CPU or batch_delay_s > 0
        this = weakref.ref(self)  # the metrics outlive the lane, and must not keep its detector
        metrics.queue_rows.set_function(lambda: lane._rows if (lane := this()) else 0)
        for _ in range(parallel_runs):
            # A daemon, because a model that never comes back must not keep the process alive.
            threading.Thread(
                target=self._work, name=f"compute-{detector.name}", daemon=True
            ).start()

    def join(
        self,
        request: Request,
        parts: Sequence[NDArray[Any]],
        *,
        reconstruct: bool,
        turn: Turn | None = None,
    ) -> bool:
        """Queue all parts or none; False when the lane has ended. Raises QueueFull.

        Without a turn, at the end of which they are seen to, a thread is woken for them.
        """
        n, now = sum(map(len, parts)), self._clock()
        members = [Member(request, i, part, reconstruct, now) for i, part in enumerate(parts)]
        request.members = members
        with self._lock:
            if self._is_stopped:
                return False
            self.check_room(n)
            for member in members:
                self._waiting[member] = None
            self._rows += n
            self._earliest_s = min(self._earliest_s, request.deadline_s)
            if turn is None or self._batch_delay_s:
                self._ring()
            elif self._idle:
                turn.add(self)
        return True

    def check_room(self, n: int) -> None:
        """Nothing, while n more rows fit into the queue. Raises QueueFull."""
        if self._rows + n > self._max_queue_rows:
            raise QueueFull(
                f"detector {self._detector.name!r} has {self._rows} rows waiting and takes "
                f"{self._max_queue_rows}; {n} more do not fit now, try again in a moment"
            )

    def ring(self) -> None:
        """Have a thread see to the rows that wait."""
        with self._lock:
            self._ring()

    def run_here(self) -> bool:
        """One run of quick requests in the caller's own thread; whether rows wait for another.

        What would take longer is left to the lane's threads, and so is all while they are busy.
        """
        with self._lock:
            first = next(iter(self._waiting), None)
            if first is None or not self._idle:
                return False
            most = self._rows_in(QUICK_S, reconstruct=first.reconstruct)
            if not self._may_run_here or len(first.x) > most:
                self._ring()
                return False
            self._idle -= 1
        run = self._begin(LONG_RUN_S)
        if run is not None:
            self._compute(run)
            with self._lock:
                self._idle += 1
        return bool(self._waiting)

    def leave(self, request: Request) -> bool:
        """Whether the request was not over yet, so that it is forgotten, whatever its state."""
        with self._lock:
            if request.is_over:
                return False
            request.is_over = True
            self._drop(request)
        self._rest(self._detector)
        return True

    def expire(self) -> None:
        """Tell those whose deadline has passed."""
        now = self._clock()
        if now < self._earliest_s:
            return
        with self._lock:
            left = self._under_way()
            late = [request for request in left if request.deadline_s <= now]
            for request in late:
                request.is_over = True
                self._drop(request)
            in_time = (request.deadline_s for request in left if request.deadline_s > now)
            self._earliest_s = min(in_time, default=math.inf)
        error = DeadlineExceeded("the deadline passed before the rows were scored")
        self._tell([(request, error) for request in late])
        if self.is_idle:
            self._rest(self._detector)

    @property
    def is_idle(self) -> bool:
        """Whether no rows wait and none are computed."""
        return not self._waiting and not self._runs

    def longest_run_s(self) -> float:
        """How long the run that began first has taken until now; 0 without any."""
        with self._lock:
            return max((self._clock() - run.started_s for run in self._runs), default=0.0)

    def stop_if_idle(self) -> bool:
        """Whether nobody waited, so that the threads end."""
        with self._lock:
            if not self.is_idle:
                return False
            self._end()
            return True

    def stop(self) -> None:
        """End the threads; whoever still waits is told."""
        with self._lock:
            left = self._under_way()
            for request in left:
                request.is_over = True
                self._drop(request)
            self._end()
        error = NotReady("the service stopped before the rows were scored")
        self._tell([(request, error) for request in left])

    def _under_way(self) -> set[Request]:
        members = (*self._waiting, *(member for run in self._runs for member in run.members))
        return {member.request for member in members if not member.request.is_over}

    def _end(self) -> None:
        self._is_stopped = True
        self._is_full.set()  # nothing more to gather
        for _ in range(self._threads):
            self._bell.put(None)

    def _ring(self) -> None:
        """Wake a thread if one sleeps. With the lock held."""
        if self._rows >= self._max_batch_rows:
            self._is_full.set()
        if self._idle:
            self._idle -= 1
            self._bell.put(None)

    def _drop(self, request: Request) -> None:
        for member in request.members:
            if member in self._waiting:
                del self._waiting[member]
                self._rows -= len(member.x)
        request.members = []  # they know it, too: a cycle would wait for the garbage collector

    def _work(self) -> None:
        """The life of one thread: sleep, compute until nothing waits, sleep again."""
        while True:
            self._bell.get()
            while (run := self._next()) is not None:
                self._compute(run)
            if self._is_stopped:
                return

    def _next(self) -> Run | None:
        """What a thread of the lane's own runs next."""
        if self._batch_delay_s:
            self._is_full.wait(self._batch_delay_s)
        return self._begin(math.inf if self._gathers_all else LONG_RUN_S)

    def _rows_in(self, seconds: float, *, reconstruct: bool) -> int:
        """How many rows a run of that length has, by the last one of its kind."""
        if seconds == math.inf:
            return self._max_batch_rows
        return int(min(seconds / self._row_s[reconstruct], self._max_batch_rows))

    def _compute(self, run: Run) -> None:
        """The answers of a run that has begun, to those who wait for them."""
        try:
            score_run(self._detector, run, run.members)
        except Exception as error:  # not of the rows: of the code around the model
            logger.exception("compute worker restarted")
            self._metrics.worker_restarts.inc()
            run.answers, run.verdicts = [error] * len(run.members), []
        self._finish(run)

    def _begin(self, length_s: float) -> Run | None:
        """The next run, about so long or one request; None, and one more idle thread, without."""
        with self._lock:
            run = Run([], self._clock())
            late = self._take(run, length_s)
            if run.members:
                self._runs.add(run)
                if self._waiting:
                    self._ring()
            else:
                self._idle += 1
        error = DeadlineExceeded("the deadline passed in the queue")
        self._tell([(request, error) for request in late])
        if not run.members:
            if self.is_idle:
                self._rest(self._detector)
            return None
        for member in run.members:
            self._metrics.phases["queue"].observe(run.started_s - member.joined_s)
        return run

    def _take(self, run: Run, length_s: float) -> Iterable[Request]:
        """Fill the run, first come first served; whose deadline has passed is returned instead.

        Reconstructions come from another graph: a run has them for all its rows or for none.
        """
        late: dict[Request, None] = {}
        rows = most = 0
        self._is_full.clear()
        for member in self._waiting:
            if member.request.deadline_s <= run.started_s:
                late[member.request] = None
            elif not run.members:
                most = self._rows_in(length_s, reconstruct=member.reconstruct)
                rows = len(member.x)
                run.members.append(member)
            elif member.reconstruct is run.members[0].reconstruct:
                rows += len(member.x)
                if rows > most:
                    break
                run.members.append(member)
        for member in run.members:
            del self._waiting[member]
            self._rows -= len(member.x)
        for request in late:
            request.is_over = True
            self._drop(request)
        return late

    def _finish(self, run: Run) -> None:
        """Count the run and hand out its answers."""
        self._count(run)
        told: list[tuple[Request, Result]] = []
        with self._lock:
            self._runs.discard(run)
            for member, answer in zip(run.members, run.answers, strict=True):
                request = member.request
                if request.is_over:  # its caller left while the model ran, or a part failed
                    continue
                if isinstance(answer, Scored):
                    request.answers[member.part] = answer
                result = answer if isinstance(answer, Exception) else whole(request)
                if result is not None:
                    request.is_over = True
                    self._drop(request)
                    told.append((request, result))
        self._tell(told)
        if self.is_idle:
            self._rest(self._detector)

    def _count(self, run: Run) -> None:
        try:
            rows = sum(len(member.x) for member in run.members)
            taken_s = self._clock() - run.started_s
            if len(run.verdicts) == 1:  # all in one run, and none at fault
                self._row_s[run.members[0].reconstruct] = max(taken_s / rows, 1e-9)
            self._metrics.observe_run(rows, taken_s)
            for verdicts in run.verdicts:
                self._metrics.observe_verdicts(verdicts)
        except Exception:  # whatever is wrong with the counting, callers wait for their answers
            logger.exception("a run could not be counted")

    def _tell(self, told: Sequence[tuple[Request, Result]]) -> None:
        """Call back without the lock: who is called may well submit again."""
        for request, result in told:
            try:
                request.done(result)
            except Exception:  # one door's mistake must not take the thread from all the others
                logger.exception("an answer could not be handed out")
