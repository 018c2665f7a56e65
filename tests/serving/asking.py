"""Asking an engine in tests: in the background, and with the model held up."""

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.engine import Engine
from amiss_serving.metrics import Metrics

from .conftest import FakeRuntime, rows

FAR = 1e9  # a deadline that never comes


def make_engine(**options: Any) -> Engine:
    return Engine(Metrics(CollectorRegistry()), **options)


def ask(
    engine: Engine,
    detector: LoadedDetector,
    *first: float,
    deadline_s: float = FAR,
    reconstruct: bool = False,
) -> "asyncio.Task[Scored]":
    work = engine.score(detector, rows(*first), deadline_s=deadline_s, reconstruct=reconstruct)
    return asyncio.create_task(work)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def occupy(
    engine: Engine, detector: LoadedDetector, runtime: FakeRuntime
) -> "asyncio.Task[Scored]":
    """Keep the model busy with one row until runtime.free is set."""
    runtime.free.clear()
    runtime.entered.clear()
    busy = ask(engine, detector, 0)
    await until(runtime.entered.is_set)
    return busy
