"""More asked than can be answered: what still gets through, how soon the rest is told, memory."""

import asyncio
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc
import numpy as np
import psutil

from .closed_loop import Floats, closed_loop
from .doors import ASK_LIMIT_S, Door, Request, frame
from .models import SEED, images
from .open_loop import Load, ask_all, poisson
from .service import SETTLED_S, Service, every, method, protocol

TOLD = {"grpc": "RESOURCE_EXHAUSTED", "http": "429"}  # try again in a moment
LOOK_S = 0.1  # between two looks at the memory
PROBE_S = 0.2  # between two requests of an ordinary client, which reads why it is refused


@dataclass(frozen=True)
class Plan:
    """rows: of a request; callers: of the closed loops; settle_s: of the overload, not counted."""

    rows: int = 32
    callers: tuple[int, ...] = (16, 64)
    capacity_s: float = 4.0
    times: float = 3.0
    settle_s: float = 2.0
    seconds: float = 10.0


@dataclass(frozen=True)
class Refusal:
    """What an ordinary client was told: code, and seconds after which to try again, if any."""

    code: str
    retry_after: str | None


@dataclass(frozen=True)
class Memory:
    """MB of the service: median of the second after the settling, of the last, and the peak."""

    settled: float
    last: float
    peak: float

    @property
    def growth(self) -> float:
        """From the settling to the last second, as a share."""
        return self.last / self.settled - 1


@dataclass(frozen=True)
class Shares:
    """CPU time over time: how many cores each took."""

    server: float
    generator: float
    others: float  # whatever else ran on the machine: a figure taken beside much of it says little


@dataclass(frozen=True)
class Overload:
    """One door, asked `plan.times` what it can answer. Counts are of the whole overload."""

    capacity_per_s: tuple[float, float]  # before and after
    offered_per_s: float
    goodput_per_s: float
    good_ms: Floats  # from the due time
    refused_ms: Floats  # from when it was sent
    unanswered: int
    miscounted: int  # refused here, and not told to try again by the service's own count
    probes: list[Refusal]
    late_p99_ms: float
    cores: Shares
    rss: Memory

    @property
    def goodput_share(self) -> float:
        """Of the capacity, the better one of the two."""
        return self.goodput_per_s / max(self.capacity_per_s)


def overload(service: Service, door: Door, plan: Plan) -> Overload:
    """Closed loops for the capacity, the open loop, closed loops again: the machine may drift.

    Raises RuntimeError when nothing was refused or nothing was answered.
    """
    request = door.encode(images(plan.rows))
    before = capacity(door, request, plan)
    due_s = poisson(plan.times * before, seconds=plan.settle_s + plan.seconds, seed=SEED)
    counted, clock = service.counts(), _Clock(service)
    with every(LOOK_S, service.rss_mb) as rss, every(PROBE_S, lambda: probe(door, request)) as said:
        load = asyncio.run(ask_all(door, request, due_s))  # select(2) takes too few connections
    cores, probes = clock.shares(), [refusal for _, refusal in said]
    if not (load.ok.any() and refused(load).any()):
        raise RuntimeError(f"{door.url}: expected good answers and refusals, got only one of them")
    time.sleep(SETTLED_S)
    told = service.counts() - counted
    key = (protocol(door), method(door), TOLD[protocol(door)])
    expected = int(refused(load).sum()) + sum(each.code == key[-1] for each in probes)
    return Overload(
        capacity_per_s=(before, capacity(door, request, plan)),
        offered_per_s=rate(load.sent_s, plan),
        goodput_per_s=rate(load.done_s[load.ok], plan),
        good_ms=(load.done_s - due_s)[load.ok] * 1000,
        refused_ms=(load.done_s - load.sent_s)[refused(load)] * 1000,
        unanswered=int(np.isnan(load.done_s).sum()),
        miscounted=abs(expected - told[key]),
        probes=probes,
        late_p99_ms=float(np.percentile(load.sent_s - due_s, 99) * 1000),
        cores=cores,
        rss=memory([(at - load.started, mb) for at, mb in rss], plan),
    )


def capacity(door: Door, request: Request, plan: Plan) -> float:
    """Good answers a second of the closed loop that gets the most."""
    windows = (
        closed_loop(door, request, in_flight=n, seconds=plan.capacity_s, warm_up_s=1.0)
        for n in plan.callers
    )
    return max(window.requests_per_s for window in windows)


def refused(load: Load) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Of each request, whether an answer came that was not a good one."""
    return ~np.isnan(load.done_s) & ~load.ok


def probe(door: Door, request: Request) -> Refusal:
    """What grpcio or urllib make of the answer."""
    return _probe_grpc(door, request) if door.http2 else _probe_http(door, request)


def _probe_grpc(door: Door, request: Request) -> Refusal:
    parts = urlsplit(door.url)
    with grpc.insecure_channel(parts.netloc) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(parts.path)
        message = request.body[len(frame(b"")) :]
        try:
            call(message, timeout=ASK_LIMIT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            said = [
                each.value for each in error.trailing_metadata() or () if each.key == "retry-after"
            ]
            return Refusal(error.code().name, str(said[0]) if said else None)
    return Refusal("OK", None)


def _probe_http(door: Door, request: Request) -> Refusal:
    post = urllib.request.Request(  # noqa: S310  our own loopback
        door.url, data=request.body, headers=dict(request.headers), method="POST"
    )
    try:
        with urllib.request.urlopen(post, timeout=ASK_LIMIT_S) as answer:  # noqa: S310
            return Refusal(str(answer.status), None)
    except urllib.error.HTTPError as error:
        return Refusal(str(error.code), error.headers.get("retry-after"))


def rate(moments_s: Floats, plan: Plan) -> float:
    """Of moments a second, those between the settling and the last due time."""
    inside = (moments_s >= plan.settle_s) & (moments_s < plan.settle_s + plan.seconds)
    return float(inside.sum() / plan.seconds)


def memory(rss: list[tuple[float, float]], plan: Plan) -> Memory:
    """rss: moments since the start, and MB."""
    end_s = plan.settle_s + plan.seconds

    def median(start_s: float) -> float:
        return float(np.median([mb for at, mb in rss if start_s <= at < start_s + 1]))

    return Memory(median(plan.settle_s), median(end_s - 1), peak=max(mb for _, mb in rss))


class _Clock:
    """CPU time from now on."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._began = self._now()

    def shares(self) -> Shares:
        """Of the time since the beginning."""
        taken_s, server_s, own_s, all_s = (
            now - then for now, then in zip(self._now(), self._began, strict=True)
        )
        others_s = max(0.0, all_s - server_s - own_s)
        return Shares(server_s / taken_s, own_s / taken_s, others_s / taken_s)

    def _now(self) -> tuple[float, ...]:
        machine = psutil.cpu_times()
        busy_s = sum(machine) - machine.idle - machine.iowait
        return time.perf_counter(), self._service.cpu_s(), time.process_time(), busy_s
