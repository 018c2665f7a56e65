"""Poisson arrivals, whatever became of the requests before: latency from the due time on.

No packaged tool does this for both protocols: hey, oha, k6, ghz and wrk2 send at an even pace, and
h2load's --timing-script-file adds up its own delays, so that it falls behind by a tenth. This is
one event loop that writes bytes made beforehand and looks for the ends of the answers. It takes no
more CPU time for a request than h2load does, and reports how late it was and its share of a core.
"""

import asyncio
import selectors
import time
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from .closed_loop import CONNECTIONS, Floats, Window
from .doors import Door, Request
from .http1 import Http1Pool
from .http2 import Http2Pool

LAST_ANSWER_S = 10.0


class Pool(Protocol):
    """Connections to one server."""

    def ask(self, index: int) -> None:
        """Send the request; `done` of the load is called with the index when it is answered."""

    def close(self) -> None:
        """Hang up."""


class Load:
    """What became of each request: seconds since the start; NaN when nothing came back."""

    def __init__(self, n: int) -> None:
        self.sent_s: Floats = np.full(n, np.nan)
        self.done_s: Floats = np.full(n, np.nan)
        self.ok: NDArray[np.bool_] = np.zeros(n, dtype=bool)
        self.body_bytes = 0
        self.waiting = n
        self.started = time.perf_counter()

    def done(self, index: int, *, ok: bool, size: int) -> None:
        """Note an answer: whether it was a good one, and the bytes of its body."""
        self.done_s[index] = time.perf_counter() - self.started
        self.ok[index] = ok
        self.body_bytes += size
        self.waiting -= 1


def open_loop(door: Door, request: Request, due_s: Floats, *, warm_up_s: float) -> Window:
    """One request at each of the due times (n,), those before warm_up_s not counted."""
    cpu_s = time.process_time()
    with asyncio.Runner(loop_factory=_exact_loop) as runner:
        load = runner.run(ask_all(door, request, due_s))
    cpu_s = time.process_time() - cpu_s
    counted = load.ok & (due_s >= warm_up_s)
    if not counted.any():
        raise RuntimeError(f"{door.url}: {len(due_s)} requests sent, expected answers, got none")
    spent = float(np.nanmax(load.done_s))
    return Window(
        requests_per_s=float(counted.sum() / (spent - warm_up_s)),
        latency_ms=(load.done_s - due_s)[counted] * 1000,
        answered=int(load.ok.sum()),
        failed=int((~load.ok).sum()),
        answer_bytes=load.body_bytes / int(load.ok.sum()),
        late_p99_ms=float(np.percentile(load.sent_s - due_s, 99) * 1000),
        load_cpu_share=cpu_s / spent,
    )


def poisson(rate: float, *, seconds: float, seed: int) -> Floats:
    """Due times (n,) of a Poisson process: independent exponential gaps of mean 1 / rate."""
    expected = rate * seconds
    draws = int(expected + 10 * expected**0.5 + 10)
    due: Floats = np.random.default_rng(seed).exponential(1 / rate, draws).cumsum()
    return due[due < seconds]


def _exact_loop() -> asyncio.AbstractEventLoop:
    """A loop on select(2), which sleeps to the microsecond; epoll rounds up to milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def ask_all(door: Door, request: Request, due_s: Floats) -> Load:
    """What became of one request at each of the due times (n,), refused ones and all."""
    load, address = Load(len(due_s)), urlsplit(door.url)
    make = Http2Pool if door.http2 else Http1Pool
    pool: Pool = await make.open(address, request, load.done, connections=CONNECTIONS)
    load.started = time.perf_counter()
    for index, due in enumerate(due_s.tolist()):
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - load.started)))
        load.sent_s[index] = time.perf_counter() - load.started
        pool.ask(index)
    for _ in range(int(LAST_ANSWER_S / 0.01)):
        if load.waiting == 0:
            break
        await asyncio.sleep(0.01)
    pool.close()
    return load
