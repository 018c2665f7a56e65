"""What both doors share: detector, deadline, phases, and the line in log and metrics."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.engine import Engine
from amiss_serving.errors import NotReady
from amiss_serving.inputs import Decoded, Limits, Spec
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository

INLINE_BYTES = 64 * 1024  # below this a thread costs more than the work it takes off the loop
OTHER = "other"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """Verdicts for one request, the detector that gave them, and what its cells were like."""

    detector: LoadedDetector
    scored: Scored
    unseen_categories: int
    missing_values: int


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
    ) -> None:
        self.repository = repository
        self.limits = limits
        self.default_timeout_s = default_timeout_s
        self.metrics = metrics
        self.clock = clock
        self._engine = engine
        self._calls: set[Call] = set()
        self._draining = False

    def check_ready(self) -> None:
        """Nothing, when rows can be scored. Raises NotReady with the reason."""
        if self._draining:
            raise NotReady("the service is draining; ask another replica")
        if not self.repository.detectors():
            refused = len(self.repository.refused)
            raise NotReady(
                f"no detector is loaded ({refused} bundles refused); train one into the models "
                "folder and start again"
            )

    def open(self, protocol: str, method: str, request_id: str | None) -> "Call":
        """The record of a request that has just arrived; close it when it is answered."""
        call = Call(self, protocol, method, request_id)
        self._calls.add(call)
        return call

    async def score(
        self,
        call: "Call",
        *,
        name: str,
        version: str,
        decode: Callable[[Spec, Limits], Decoded],
        size_bytes: int,
        timeout_s: float | None,
        reconstruct: bool,
    ) -> Answer:
        """The answer to one scoring request. timeout_s counts from its arrival.

        decode(spec, limits) makes the rows; it runs in a thread when the request is large.
        """
        self.check_ready()
        detector = call.detector = self.repository.resolve(name, version)
        timeout_s = self.default_timeout_s if timeout_s is None else timeout_s
        with call.phase("decode"):
            decoded = await aside(size_bytes, decode, detector.spec, self.limits)
        scored = await self._engine.score(
            detector,
            decoded.x,
            deadline_s=call.started_s + timeout_s,
            reconstruct=reconstruct,
        )
        return Answer(detector, scored, decoded.unseen_categories, decoded.missing_values)

    async def drain(self, limit_s: float) -> None:
        """Refuse new requests, let those under way finish for limit_s, stop the engine."""
        self._draining = True
        end_s = self.clock() + limit_s
        while self._calls and self.clock() < end_s:
            await asyncio.sleep(0.01)
        if self._calls:
            fields = {"requests": len(self._calls), "drain_s": limit_s}
            logger.warning("requests cut off while draining", extra={"fields": fields})
        await self._engine.close()

    def closed(self, call: "Call") -> None:
        """Forget a request that was answered."""
        self._calls.discard(call)


class Call:
    """One request on its way through a door: its id, its clock, its line in log and metrics."""

    def __init__(
        self, service: Service, protocol: str, method: str, request_id: str | None
    ) -> None:
        sane = request_id is not None and _SANE_ID.fullmatch(request_id)
        self.request_id = request_id if request_id and sane else uuid.uuid4().hex
        self.method = method
        self.detector: LoadedDetector | None = None
        self.error = ""
        self.started_s = service.clock()
        self._service = service
        self._protocol = protocol

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase of this request, for the detector it found."""
        started = self._service.clock()
        yield
        if self.detector is not None:
            model = self._service.metrics.model(self.detector.name, self.detector.version)
            model.phases[name].observe(self._service.clock() - started)

    def explain(self, error: BaseException) -> str:
        """What the caller of an unexpected error is told; the log is told everything."""
        fields = {"request_id": self.request_id, "method": self.method}
        logger.error("unexpected error", exc_info=error, extra={"fields": fields})
        return f"internal error; the log has it under request id {self.request_id}"

    def close(self, code: str, *, quiet: bool = False) -> None:
        """Log and count the answer. quiet: a probe that went well, worth a debug line only."""
        duration_s = self._service.clock() - self.started_s
        name = self.detector.name if self.detector else ""
        version = str(self.detector.version) if self.detector else ""
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "protocol": self._protocol,
            "method": self.method,
            "detector": name,
            "version": version,
            "code": code,
            "duration_s": round(duration_s, 6),
        }
        if self.error:
            fields["error"] = self.error
        logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": fields})
        self._service.metrics.observe_request(
            name,
            version,
            protocol=self._protocol,
            method=self.method,
            code=code,
            duration_s=duration_s,
        )
        self._service.closed(self)


async def aside(size_bytes: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What work(...) returns: at once when it is small, else from a thread, so the loop goes on."""
    if size_bytes <= INLINE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
