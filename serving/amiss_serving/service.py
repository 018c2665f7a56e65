"""What both doors share: detector, deadline, phases, and the line in log and metrics."""

import asyncio
import itertools
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

import msgspec
from numpy.typing import NDArray

from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.engine import Engine, Ticket
from amiss_serving.errors import DetectorNotFound, NotReady
from amiss_serving.inputs import Decoded, Limits, Spec
from amiss_serving.metrics import Metrics, ModelMetrics
from amiss_serving.repository import DetectorRepository, Swap
from amiss_serving.runs import Result
from amiss_serving.shadow import Shadow
from amiss_serving.tracing import NO_SPAN, NO_TRACER, Span, Tracer
from amiss_serving.turn import Turn

INLINE_BYTES = 64 * 1024  # below this a thread costs more than the work it takes off the loop
EXPIRE_EVERY_S = 0.05
OTHER = "other"
_PREFIX = uuid.uuid4().hex[:16]  # of this process; ids count on from it
_NUMBERS = itertools.count()
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger(__name__)


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Verdicts for one request, the detector that gave them, and what its cells were like."""

    detector: LoadedDetector
    scored: Scored
    unseen_categories: int
    missing_values: int


class Ask(msgspec.Struct, frozen=True):
    """What one request wants scored, as both doors put it.

    decode(spec, limits) makes the rows; size_bytes is how much work that is. timeout_s counts from
    the request's arrival; None takes the service's default.
    """

    name: str
    version: str
    decode: Callable[[Spec, Limits], Decoded]
    size_bytes: int
    timeout_s: float | None = None
    reconstruct: bool = False

    def within(self, timeout_s: float | None) -> "Ask":
        """The same, with no more time than that."""
        if timeout_s is None or (self.timeout_s is not None and self.timeout_s <= timeout_s):
            return self
        return msgspec.structs.replace(self, timeout_s=timeout_s)


class Service:
    """The room behind the doors. Each door only translates."""

    def __init__(
        self,
        repository: DetectorRepository,
        engine: Engine,
        metrics: Metrics,
        *,
        limits: Limits,
        default_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        tracer: Tracer = NO_TRACER,
        shadow: Shadow | None = None,
    ) -> None:
        self.limits = limits
        self.default_timeout_s = default_timeout_s
        self.metrics = metrics
        self.clock = clock
        self.tracer = tracer
        self._repository = repository
        self._engine = engine
        self._shadow = shadow
        self._calls: set[Call] = set()
        self._loop = asyncio.get_running_loop()
        self.is_starting = True
        self._leaving = False  # not ready any more, but newcomers are still answered
        self._draining = False
        metrics.ready.set_function(self.is_ready)
        metrics.refused_bundles.set_function(lambda: len(repository.refused))

    @property
    def repository(self) -> DetectorRepository:
        """What is served. Raises NotReady while it is being loaded: nobody sees half of it."""
        if self.is_starting:
            raise NotReady("the service is starting: bundles are being loaded")
        return self._repository

    async def start(self) -> None:
        """Load the bundles, in a thread: the doors already answer, that it is starting.

        Raises BadInput when the device that was asked for is not there.
        """
        await in_daemon(self._repository.scan)
        self._announce(self._repository.detectors())
        self._repository.listeners.append(self._swapped)
        self.is_starting = False

    async def keep_time(self) -> None:
        """Tell those whose deadline passes while a model runs; until cancelled."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            self._engine.expire()

    def check_alive(self) -> None:
        """Nothing, while every model comes back. Raises NotReady naming the one that does not."""
        self._engine.check_alive()

    def check_ready(self) -> None:
        """Nothing, when it is right to send rows here. Raises NotReady with the reason."""
        if self._leaving:
            raise NotReady("the service is draining; ask another replica")
        self._check_open()
        self.check_alive()
        for detector in self.repository.answering():
            detector.runtime.check_ready()

    def is_ready(self) -> bool:
        """Whether it is right to send rows here."""
        try:
            self.check_ready()
        except NotReady:
            return False
        return True

    def _check_open(self) -> None:
        """Nothing, when rows can be scored. Raises NotReady with the reason.

        One stalled model is no reason: the others still answer, until somebody restarts it all.
        """
        if self._draining:
            raise NotReady("the service is draining; ask another replica")
        if self.repository.is_empty:
            refused = len(self.repository.refused)
            raise NotReady(
                "no detector is loaded: load one, or train one into the models folder"
                + (f"; {refused} refused, the log and ListDetectors say why" if refused else "")
            )

    def open(
        self, protocol: str, method: str, request_id: str | None, span: Span = NO_SPAN
    ) -> "Call":
        """The record of a request that has just arrived; close it when it is answered."""
        call = Call(self, protocol, method, request_id, span)
        self._calls.add(call)
        return call

    def admit(self, call: "Call", name: str, version: str) -> LoadedDetector:
        """The detector to score with, noted for log and metrics.

        Raises NotReady, DetectorNotFound, and QueueFull where not even one row would find room.
        Doors ask before they read a body: under overload most of the work is to refuse.
        """
        if self._draining:
            self._check_open()
        try:
            detector = self.repository.resolve(name, version)
        except DetectorNotFound:
            self._check_open()  # without any detector, that is the reason
            raise
        call.found(detector, is_scoring=True)
        self._engine.check_room(detector)
        return detector

    async def score(self, call: "Call", ask: Ask) -> Answer:
        """The answer to one scoring request, on the event loop; large ones decode in a thread."""
        detector = self.admit(call, ask.name, ask.version)
        with call.phase("decode"):
            decoded = await aside(ask.size_bytes, ask.decode, detector.spec, self.limits)
        answer = await self._engine.score(
            detector,
            decoded.x,
            deadline_s=self._deadline_s(call, ask),
            reconstruct=ask.reconstruct,
        )
        return call.answered(answer, decoded)

    def submit(
        self,
        call: "Call",
        ask: Ask,
        done: Callable[[Answer | Exception], None],
        turn: Turn | None = None,
    ) -> Ticket:
        """`score` on any thread: done gets the answer or the error once, as `Engine.submit` has it.

        Raises what keeps the request from being queued; done is not called then.
        """
        detector = self.admit(call, ask.name, ask.version)
        with call.phase("decode"):
            decoded = ask.decode(detector.spec, self.limits)

        def scored(result: Result) -> None:
            done(result if isinstance(result, Exception) else call.answered(result, decoded))

        return self._engine.submit(
            detector,
            decoded.x,
            deadline_s=self._deadline_s(call, ask),
            done=scored,
            reconstruct=ask.reconstruct,
            turn=turn,
        )

    def _deadline_s(self, call: "Call", ask: Ask) -> float:
        timeout_s = self.default_timeout_s if ask.timeout_s is None else ask.timeout_s
        return call.started_s + timeout_s

    async def drain(self, limit_s: float, *, delay_s: float = 0.0) -> None:
        """Fail readiness, refuse newcomers after delay_s, stop the engine after limit_s at most.

        Earlier when nothing is under way any more.
        """
        self._leaving = True
        end_s = self.clock() + limit_s
        await asyncio.sleep(delay_s)
        self._draining = True
        while self._calls and self.clock() < end_s:
            await asyncio.sleep(0.01)
        if self._calls:
            fields = {"requests": len(self._calls), "drain_s": limit_s}
            logger.warning("requests cut off while draining", extra={"fields": fields})
        if self._shadow:
            self._shadow.close()
        await self._engine.close()
        runtimes = {detector.runtime for detector in self._repository.detectors()}
        await asyncio.gather(*[asyncio.to_thread(runtime.close) for runtime in runtimes])

    def closed(self, call: "Call") -> None:
        """Forget a request that was answered."""
        self._calls.discard(call)
        if self._shadow and call.detector is not None and call.rows is not None:
            self._loop.call_soon_threadsafe(self._shadow.offer, call.detector, call.rows)

    def _swapped(self, swap: Swap) -> None:
        """What answers for a name has changed: tell the metrics, let go of what was swapped out."""
        self._announce(swap.added)
        served = {(d.name, d.version) for d in self._repository.detectors()}
        for detector in swap.retired:
            self._engine.retire(detector)
            if (detector.name, detector.version) not in served:
                self.metrics.withdraw(detector.name, detector.version)

    def _announce(self, detectors: Iterable[LoadedDetector]) -> None:
        load_duration_s = self._repository.load_duration_s
        for detector in detectors:
            self.metrics.announce(
                detector.name,
                detector.version,
                alarm_rate=detector.rule.decision.alarm_rate,
                load_s=load_duration_s[detector],
            )


class Call:
    """One request on its way through a door: its id, its clock, its line in log and metrics."""

    __slots__ = (
        "_protocol",
        "_service",
        "detector",
        "error",
        "has_own_id",
        "is_scoring",
        "method",
        "model",
        "queued_s",
        "request_id",
        "rows",
        "span",
        "started_s",
    )

    def __init__(
        self, service: Service, protocol: str, method: str, request_id: str | None, span: Span
    ) -> None:
        sane = request_id is not None and _SANE_ID.fullmatch(request_id)
        self.has_own_id = bool(sane)
        self.request_id = request_id if request_id and sane else f"{_PREFIX}{next(_NUMBERS):016x}"
        self.method = method
        self.detector: LoadedDetector | None = None
        self.model: ModelMetrics | None = None  # the detector's
        self.is_scoring = False  # whether a detector was asked for verdicts
        self.queued_s = 0.0
        self.rows: NDArray[Any] | None = None  # those that were scored
        self.error = ""
        self.started_s = service.clock()
        self._service = service
        self._protocol = protocol
        self.span = span

    def found(self, detector: LoadedDetector, *, is_scoring: bool = False) -> LoadedDetector:
        """The detector that the request is about, noted for log and metrics."""
        self.detector, self.is_scoring = detector, is_scoring
        self.model = self._service.metrics.model(detector.name, detector.version)
        return detector

    def answered(self, scored: Scored, decoded: Decoded) -> Answer:
        """The answer of the detector that was found, noted for the trace and for shadow traffic."""
        if self.detector is None:
            raise RuntimeError("no detector was asked")
        self.span.phase("queue", self.queued_s, scored.ran_s[0])
        self.span.phase("compute", *scored.ran_s)
        self.rows = decoded.x
        return Answer(self.detector, scored, decoded.unseen_categories, decoded.missing_values)

    def phase(self, name: str) -> "Phase":
        """Times what is inside `with`, for the detector that was found."""
        return Phase(self, name)

    def passed(self, name: str, started_s: float) -> None:
        """Count a phase that is over now."""
        ended_s = self.queued_s = self._service.clock()
        self.span.phase(name, started_s, ended_s)
        if self.model is not None:
            self.model.phases[name].observe(ended_s - started_s)

    def now(self) -> float:
        """The moment, on the service's clock."""
        return self._service.clock()

    def explain(self, error: BaseException) -> str:
        """What the caller of an unexpected error is told; the log is told everything."""
        fields = {"request_id": self.request_id, "method": self.method}
        logger.error("unexpected error", exc_info=error, extra={"fields": fields})
        return f"internal error; the log has it under request id {self.request_id}"

    def close(self, code: str, *, quiet: bool = False) -> None:
        """Log and count the answer. quiet: a probe that went well, no matter for a trace.

        What went well and is in no trace is a debug line: one each costs as much as a small model.
        """
        ended_s = self._service.clock()
        duration_s = ended_s - self.started_s
        name, version = self.model.key if self.model else ("", "")
        if self.model is not None and self.is_scoring:
            self.model.observe_answer(duration_s, is_success=self.rows is not None)
        if self.error or self.span is not NO_SPAN or logger.isEnabledFor(logging.DEBUG):
            self._log(name, version, code, ended_s=ended_s, quiet=quiet)
        self._service.metrics.observe_request(
            name,
            version,
            protocol=self._protocol,
            method=self.method,
            code=code,
            duration_s=duration_s,
        )
        self._service.closed(self)

    def _log(self, name: str, version: str, code: str, *, ended_s: float, quiet: bool) -> None:
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "protocol": self._protocol,
            "method": self.method,
            "detector": name,
            "version": version,
            "code": code,
            "duration_s": round(ended_s - self.started_s, 6),
        }
        if self.error:
            fields["error"] = self.error
        if not quiet:
            trace_id = self.span.end(fields, started_s=self.started_s, ended_s=ended_s)
            if trace_id:
                fields["trace_id"] = trace_id
        level = logging.INFO if self.error or "trace_id" in fields else logging.DEBUG
        logger.log(level, "request", extra={"fields": fields})


class Phase:
    """One phase of a call, from `with` to the end of its block."""

    __slots__ = ("_call", "_name", "_started_s")

    def __init__(self, call: Call, name: str) -> None:
        self._call, self._name = call, name

    def __enter__(self) -> None:
        self._started_s = self._call.now()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._call.passed(self._name, self._started_s)


async def aside(size_bytes: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What work(...) returns: at once when it is small, else from a thread, so the loop goes on."""
    if size_bytes <= INLINE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


async def in_daemon(work: Callable[[], object]) -> None:
    """Return when work() has, in a thread that keeps nobody waiting who is cancelled meanwhile.

    Threads of `asyncio.to_thread` are waited for when the process ends.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if done.done():  # cancelled
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="loading", daemon=True).start()
    await done
