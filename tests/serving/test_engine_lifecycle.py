"""The engine when it closes, lets go of a detector, or has a model that does not come back."""

import asyncio
import gc
import threading
import weakref
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from amiss_serving.engine import Engine
from amiss_serving.errors import DeadlineExceeded, NotReady
from amiss_serving.metrics import Metrics

from .asking import FAR, ask, make_engine, occupy, until
from .conftest import FakeRuntime, MakeDetector, rows


def compute_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "compute-table"]


async def test_closing_lets_the_waiting_finish(make_detector: MakeDetector) -> None:
    """Those who wait when the engine closes are answered; newcomers are refused."""
    runtime = FakeRuntime()
    engine, detector = make_engine(), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    waiting = ask(engine, detector, 5)
    await asyncio.sleep(0)
    closing = asyncio.create_task(engine.close(limit_s=5))
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await ask(engine, detector, 6)
    runtime.free.set()
    await closing
    assert (await busy).verdicts.score.tolist() == [0]
    assert (await waiting).verdicts.score.tolist() == [5]


async def test_closing_fails_those_who_take_too_long(make_detector: MakeDetector) -> None:
    """When the limit is over, whoever still waits gets NotReady instead of silence."""
    runtime = FakeRuntime()
    engine, detector = make_engine(), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    waiting = ask(engine, detector, 5)
    await asyncio.sleep(0)
    await engine.close(limit_s=0.01)
    for task in (busy, waiting):
        with pytest.raises(NotReady):
            await task
    runtime.free.set()


async def test_a_run_that_does_not_come_back_is_named(make_detector: MakeDetector) -> None:
    """Past the limit the engine says which detector stalls; when the run ends it is well again."""
    runtime, now = FakeRuntime(), [100.0]
    engine = make_engine(clock=lambda: now[0], stalled_after_s=4.0)
    busy = await occupy(engine, make_detector(runtime), runtime)
    now[0] = 103.9
    engine.check_alive()
    now[0] = 104.1
    with pytest.raises(NotReady, match="table@1 has taken 4 s"):
        engine.check_alive()
    runtime.free.set()
    await busy
    engine.check_alive()
    await engine.close()


async def test_a_retired_detector_answers_those_who_have_it(make_detector: MakeDetector) -> None:
    """Its threads end only when nobody waits; a request that joins after that is answered, too."""
    runtime = FakeRuntime()
    engine, detector = make_engine(), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    waiting = ask(engine, detector, 1)
    await asyncio.sleep(0)
    engine.retire(detector)
    runtime.free.set()
    assert [(await a).verdicts.score.tolist() for a in (busy, waiting)] == [[0], [1]]
    assert (await ask(engine, detector, 2)).verdicts.score.tolist() == [2]
    await until(lambda: not compute_threads())
    await engine.close()


async def test_a_retired_detector_whose_last_request_is_late_is_let_go(
    make_detector: MakeDetector,
) -> None:
    """Though its deadline passed in the queue, the threads end and nothing holds the detector."""
    runtime, now = FakeRuntime(), [100.0]
    engine, detector = make_engine(clock=lambda: now[0]), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    late = ask(engine, detector, 1, deadline_s=160)
    await asyncio.sleep(0)
    engine.retire(detector)
    now[0] = 161.0
    runtime.free.set()
    await busy
    with pytest.raises(DeadlineExceeded):
        await late
    await until(lambda: not compute_threads())
    held, detector = weakref.ref(detector), make_detector(runtime)
    del busy, late
    await until(lambda: gc.collect() >= 0 and held() is None)
    await engine.close()


async def test_what_waits_behind_a_stuck_model_is_told_at_its_deadline(
    make_detector: MakeDetector,
) -> None:
    """`expire` tells those whose time is over, computing or waiting, and nobody else."""
    runtime, now = FakeRuntime(), [100.0]
    engine, detector = make_engine(clock=lambda: now[0]), make_detector(runtime)
    runtime.free.clear()
    told: dict[str, Any] = {}
    for name, deadline_s in (("computing", 110.0), ("waiting", 120.0), ("patient", FAR)):
        done = partial(told.__setitem__, name)
        engine.submit(detector, rows(1), deadline_s=deadline_s, done=done)
        await until(runtime.entered.is_set)
    now[0] = 121.0
    engine.expire()
    assert {name: type(result) for name, result in told.items()} == {
        "computing": DeadlineExceeded,
        "waiting": DeadlineExceeded,
    }
    runtime.free.set()
    await until(lambda: "patient" in told)
    await engine.close()


async def test_a_worker_that_breaks_is_replaced(make_detector: MakeDetector) -> None:
    """An error outside the model fails its batch alone, is counted, and the next is answered."""
    metrics = Metrics(CollectorRegistry())
    engine, detector = Engine(metrics), make_detector(FakeRuntime())
    rule, broken = detector.rule, [True]

    def sometimes(scores: NDArray[np.float32]) -> Any:
        return None if broken.pop() else rule(scores)

    detector = replace(detector, rule=sometimes)  # type: ignore[arg-type]  # no verdicts at all
    with pytest.raises(AttributeError):
        await ask(engine, detector, 1)
    broken.append(False)
    assert (await ask(engine, detector, 2)).verdicts.score.tolist() == [2]
    labels = {"model": "table", "version": "1"}
    assert metrics.registry.get_sample_value("amiss_worker_restarts_total", labels) == 1
    await engine.close()
