"""Many requests of all kinds, good and bad, told and counted; what they leave behind in memory."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from .closed_loop import h2load
from .doors import Door, Request
from .http1 import Http1Pool
from .http2 import Http2Pool
from .models import NAME, SHAPE, images
from .service import SETTLED_S, Counts, Service, method, protocol

ROUND = 10_000  # requests in one rotation
CALLERS = 16
SHORT_S = 0.02  # after which those who hang up do: the first of them may have been answered
NO_NAME = "nobody00"  # as long as NAME: the bytes around it stay as they are
METHODS = ("ModelInfer", "Score")
# What may become of a request whose caller does not wait for the end.
LEFT = {"grpc": ("OK", "CANCELLED", "DEADLINE_EXCEEDED"), "http": ("200", "499")}


@dataclass(frozen=True)
class Slice:
    """n requests of one kind. code: what each is answered with; None where the caller leaves."""

    name: str
    n: int
    door: Door
    request: Request
    code: str | None
    hangs_up: bool = False


@dataclass
class Tally:
    """What was sent, and what the service must have counted."""

    sent: int = 0
    exact: Counts = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)  # by protocol: whose caller did not wait
    hung_up: Counter[str] = field(default_factory=Counter)  # of these, perhaps never seen
    unanswered: int = 0  # of those who waited

    def add(self, part: Slice, answered: int) -> None:
        """Note a slice that was sent, and how many of it were answered."""
        self.sent += part.n
        name = protocol(part.door)
        if part.code is None:
            self.left[name] += part.n
        else:
            self.exact[name, method(part.door), part.code] += part.n
        if part.hangs_up:
            self.hung_up[name] += part.n
        else:
            self.unanswered += part.n - answered

    def differences(self, counts: Counts) -> list[str]:
        """What the service counted otherwise; those who hung up may have gone unseen."""
        counts = Counter({key: n for key, n in counts.items() if key[1] in METHODS})
        found, left = [], Counter[str]()
        for key in sorted({*self.exact, *counts}):
            more = counts[key] - self.exact[key]
            if more > 0 and key[2] in LEFT[key[0]]:
                left[key[0]] += more
            elif more != 0:
                found.append(f"{' '.join(key)}: sent {self.exact[key]}, counted {counts[key]}")
        for name, most in self.left.items():
            least = most - self.hung_up[name]
            if not least <= left[name] <= most:
                found.append(f"{name}, left: sent {least} to {most}, counted {left[name]}")
        return found


def soak(service: Service, *, requests: int) -> Iterator[Tally]:
    """The tally after each rotation, until so many requests were sent."""
    tally, parts = Tally(), mix(service)
    while tally.sent < requests:
        for part in parts:
            tally.add(part, send(part))
        service.counts()  # an occasional scrape, as Prometheus would
        time.sleep(SETTLED_S)
        yield tally


def mix(service: Service) -> list[Slice]:
    """One rotation: ROUND requests, mostly single images over gRPC, a twentieth of them bad."""
    oip, v1 = service.oip_grpc, service.amiss_v1
    http, text = service.oip_http, service.oip_json
    bad, unknown = "INVALID_ARGUMENT", "NOT_FOUND"
    hurried = _hurried(oip.encode(images(32)))
    return [
        *(_good(oip, rows, n) for rows, n in ((1, 3200), (5, 500), (32, 150))),
        *(_good(v1, rows, n) for rows, n in ((1, 2000), (2, 600), (32, 100))),
        *(_good(http, rows, n) for rows, n in ((1, 1200), (2, 400), (5, 300), (32, 150))),
        *(_good(text, rows, n) for rows, n in ((1, 200), (5, 50))),
        *(_misshapen(door, n, code) for door, n, code in ((oip, 250, bad), (v1, 100, bad))),
        _misshapen(http, 200, "400"),
        *(_unknown(door, 150, code) for door, code in ((oip, unknown), (http, "404"))),
        Slice("gRPC, 5 ms to live", 100, oip, hurried, None),
        *(
            Slice("hung up", 100, door, door.encode(images(32)), None, hangs_up=True)
            for door in (oip, http)
        ),
    ]


def send(part: Slice) -> int:
    """How many of the slice's requests were answered, whatever the answer."""
    if part.hangs_up:
        return asyncio.run(_hang_up(part))
    connections = 4 if part.door.http2 else CALLERS
    options = ["-n", part.n, "-c", connections, "-m", CALLERS // connections, part.door.url]
    log, _, _ = h2load(part.door, part.request, list(map(str, options)))
    return len(log.start_s)


async def _hang_up(part: Slice) -> int:
    """How many were answered before SHORT_S had passed."""
    answered: list[int] = []

    def done(index: int, *, ok: bool, size: int) -> None:
        answered.append(index)

    make = Http2Pool if part.door.http2 else Http1Pool
    connections = 4 if part.door.http2 else part.n
    pool = await make.open(urlsplit(part.door.url), part.request, done, connections=connections)
    for index in range(part.n):
        pool.ask(index)
    await asyncio.sleep(SHORT_S)
    pool.close()
    await asyncio.sleep(SHORT_S)  # for the loop to have hung up
    return len(answered)


def _good(door: Door, rows: int, n: int) -> Slice:
    code = "OK" if door.http2 else "200"
    return Slice(f"{door.name}, rows {rows}", n, door, door.encode(images(rows)), code)


def _misshapen(door: Door, n: int, code: str) -> Slice:
    """Images that are a pixel too narrow."""
    narrow = images(1)[..., : SHAPE[-1] - 1].copy()
    return Slice(f"{door.name}, misshapen", n, door, door.encode(narrow), code)


def _unknown(door: Door, n: int, code: str) -> Slice:
    """A model that is not served."""
    request = door.encode(images(1))
    body = request.body.replace(NAME.encode(), NO_NAME.encode())
    elsewhere = replace(door, url=door.url.replace(NAME, NO_NAME))
    return Slice(f"{door.name}, unknown", n, elsewhere, replace(request, body=body), code)


def _hurried(request: Request) -> Request:
    """The request with a deadline that most callers will miss."""
    return replace(request, headers={**request.headers, "grpc-timeout": "5m"})
