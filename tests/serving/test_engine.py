"""The hot path: who is batched with whom, who is told what, and that answers are never mixed up."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from amiss_export.errors import AmissError, BadInput
from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.engine import Engine
from amiss_serving.errors import DeadlineExceeded, NotReady, QueueFull, TooLarge
from amiss_serving.metrics import Metrics

from .conftest import POISON, FakeRuntime, MakeDetector, rows

FAR = 1e9
SCORE_ONLY = ("score",)
OTHER_STEPS = ("cancel", "swap", "hold", "free", "turn")


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


def compute_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "compute-table"]


@dataclass
class Shifted(FakeRuntime):
    """A later version, whose scores differ from the first one's by a fixed amount."""

    by: float = 0.0

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        values = super().run(x, outputs)
        return values | {"score": values["score"] + np.float32(self.by)}


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    max_batch_rows=st.integers(1, 9),
    asked=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_row_i_gets_row_is_answer(
    make_detector: MakeDetector, sizes: list[int], max_batch_rows: int, asked: list[bool]
) -> None:
    """Whatever is batched with whatever, row i's answer and reconstruction belong to row i."""
    starts = np.cumsum([0, *sizes])

    async def all_of_them() -> list[Scored]:
        engine = make_engine(max_batch_rows=max_batch_rows)
        detector = make_detector(FakeRuntime())
        requests = [
            ask(engine, detector, *range(start, start + size), reconstruct=want)
            for start, size, want in zip(starts, sizes, asked, strict=False)
        ]
        answers = await asyncio.gather(*requests)
        await engine.close()
        return answers

    for start, size, want, answer in zip(
        starts, sizes, asked, asyncio.run(all_of_them()), strict=False
    ):
        mine = np.arange(start, start + size)
        np.testing.assert_array_equal(answer.verdicts.score, mine)
        assert (answer.reconstruction is not None) == want
        if answer.reconstruction is not None:
            np.testing.assert_array_equal(answer.reconstruction[:, 0], mine + 1)


async def test_what_waits_while_the_model_is_busy_goes_into_one_run(
    make_detector: MakeDetector,
) -> None:
    """Five requests that arrive during a run are scored by the next single run."""
    runtime = FakeRuntime()
    engine, detector = make_engine(), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    waiting = [ask(engine, detector, i) for i in range(5)]
    await asyncio.sleep(0)
    runtime.free.set()
    await asyncio.gather(busy, *waiting)
    assert [n for n, _ in runtime.calls] == [1, 5]
    await engine.close()


async def test_a_large_request_is_split_and_joined(make_detector: MakeDetector) -> None:
    """Ten rows with batches of four run as 4 + 4 + 2 and come back as ten, in order."""
    runtime = FakeRuntime()
    engine = make_engine(max_batch_rows=4)
    scored = await ask(engine, make_detector(runtime), *range(10), reconstruct=True)
    assert [n for n, _ in runtime.calls] == [4, 4, 2]
    np.testing.assert_array_equal(scored.verdicts.score, np.arange(10))
    assert scored.reconstruction is not None
    assert scored.reconstruction.shape == (10, 3)
    await engine.close()


async def test_a_delay_gathers_requests_that_come_one_after_another(
    make_detector: MakeDetector,
) -> None:
    """With a batch delay two requests a moment apart share a run, though the model was free."""
    runtime = FakeRuntime()
    engine, detector = make_engine(batch_delay_s=0.2), make_detector(runtime)
    first = ask(engine, detector, 1)
    await asyncio.sleep(0.02)
    await asyncio.gather(first, ask(engine, detector, 2))
    assert [n for n, _ in runtime.calls] == [2]
    await engine.close()


async def test_the_queue_is_bounded_in_rows(make_detector: MakeDetector) -> None:
    """A request that would make five waiting rows of at most four is refused whole, at once."""
    runtime = FakeRuntime()
    engine, detector = make_engine(max_queue_rows=4, max_request_rows=4), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    waiting = ask(engine, detector, 1, 2, 3)
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="3 rows waiting and takes 4; 2 more"):
        await ask(engine, detector, 4, 5)
    fits = ask(engine, detector, 6)
    runtime.free.set()
    await asyncio.gather(busy, waiting, fits)
    await engine.close()


async def test_one_detectors_queue_does_not_hold_up_another(make_detector: MakeDetector) -> None:
    """While one detector's model is busy, another detector answers."""
    slow, quick = FakeRuntime(), FakeRuntime()
    engine, detector = make_engine(), make_detector(slow)
    busy = await occupy(engine, detector, slow)
    await ask(engine, make_detector(quick), 1)
    assert not busy.done()
    slow.free.set()
    await busy
    await engine.close()


async def test_rows_past_their_deadline_are_not_computed(make_detector: MakeDetector) -> None:
    """A request whose deadline passes in the queue is told so and never reaches the model."""
    runtime, now = FakeRuntime(), [100.0]
    engine, detector = make_engine(clock=lambda: now[0]), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    late, in_time = ask(engine, detector, 1, deadline_s=160), ask(engine, detector, 2)
    await asyncio.sleep(0)
    now[0] = 161.0
    runtime.free.set()
    with pytest.raises(DeadlineExceeded):
        await late
    await asyncio.gather(busy, in_time)
    assert [n for n, _ in runtime.calls] == [1, 1]
    await engine.close()


async def test_a_deadline_ends_the_wait_while_the_model_computes(
    make_detector: MakeDetector,
) -> None:
    """The caller is told of the deadline at once, not when the model comes back."""
    runtime = FakeRuntime()
    engine, detector = make_engine(clock=lambda: 0.0), make_detector(runtime)
    runtime.free.clear()
    with pytest.raises(DeadlineExceeded):
        await ask(engine, detector, 1, deadline_s=0.02)
    runtime.free.set()
    await engine.close(limit_s=1)


async def test_a_cancelled_request_leaves_the_queue(make_detector: MakeDetector) -> None:
    """A cancelled request's rows are not computed and make room for others at once."""
    runtime = FakeRuntime()
    engine, detector = make_engine(max_queue_rows=2, max_request_rows=2), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    gone = ask(engine, detector, 1, 2)
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    instead = ask(engine, detector, 3, 4)
    runtime.free.set()
    await asyncio.gather(busy, instead)
    assert [n for n, _ in runtime.calls] == [1, 2]
    await engine.close()


async def test_a_request_cancelled_during_its_run_spoils_nothing(
    make_detector: MakeDetector,
) -> None:
    """When one of two members leaves during the run, the other still gets its answer."""
    runtime = FakeRuntime()
    engine, detector = make_engine(), make_detector(runtime)
    runtime.free.clear()
    gone, stays = ask(engine, detector, 1), ask(engine, detector, 2)
    await until(runtime.entered.is_set)
    gone.cancel()
    await asyncio.sleep(0)
    runtime.free.set()
    assert (await stays).verdicts.score.tolist() == [2]
    assert gone.cancelled()
    assert [n for n, _ in runtime.calls] == [2]
    await engine.close()


async def test_a_bad_request_fails_alone(make_detector: MakeDetector) -> None:
    """The model's error reaches only the request whose rows caused it."""
    runtime = FakeRuntime()
    engine, detector = make_engine(), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    before, bad, after = (ask(engine, detector, x) for x in (1, POISON, 2))
    await asyncio.sleep(0)
    runtime.free.set()
    with pytest.raises(RuntimeError, match="poisoned row"):
        await bad
    assert [(await a).verdicts.score.tolist() for a in (before, after)] == [[1], [2]]
    assert [n for n, _ in runtime.calls] == [1, 3, 1, 1, 1]
    await busy
    await engine.close()


async def test_a_score_that_is_no_number_is_an_error_not_a_verdict(
    make_detector: MakeDetector,
) -> None:
    """A NaN score fails its own request and leaves its neighbour alone."""

    class Nan(FakeRuntime):
        def run(self, x: Any, outputs: tuple[str, ...]) -> dict[str, Any]:
            values = super().run(x, outputs)
            values["score"][x[:, 0] == 7] = np.nan
            return values

    runtime = Nan()
    engine, detector = make_engine(), make_detector(runtime)
    busy = await occupy(engine, detector, runtime)
    bad, good = ask(engine, detector, 7), ask(engine, detector, 8)
    await asyncio.sleep(0)
    runtime.free.set()
    with pytest.raises(AmissError, match="not a finite number"):
        await bad
    assert (await good).verdicts.score.tolist() == [8]
    await busy
    await engine.close()


async def test_reconstruction_is_computed_only_when_a_member_asks(
    make_detector: MakeDetector,
) -> None:
    """A run computes the reconstruction exactly when one of its members asked for it."""
    runtime = FakeRuntime()
    engine, detector = make_engine(), make_detector(runtime)
    await ask(engine, detector, 1)
    await ask(engine, detector, 1, reconstruct=True)
    assert [outputs for _, outputs in runtime.calls] == [SCORE_ONLY, ("score", "reconstruction")]
    await engine.close()


async def test_a_wrong_tensor_never_reaches_the_queue(make_detector: MakeDetector) -> None:
    """Wrong shape, infinity or too many rows are refused before the model runs."""
    runtime = FakeRuntime()
    engine, detector = make_engine(max_request_rows=2), make_detector(runtime)
    with pytest.raises(BadInput, match="float32 tensor"):
        await engine.score(detector, np.zeros((1, 2), np.float32), deadline_s=FAR)
    with pytest.raises(BadInput, match="finite"):
        await engine.score(detector, np.full((1, 3), np.inf, np.float32), deadline_s=FAR)
    with pytest.raises(TooLarge, match="2 rows, got 3"):
        await ask(engine, detector, 1, 2, 3)
    assert runtime.calls == []
    await engine.close()


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


async def test_the_engine_counts_what_it_did(make_detector: MakeDetector) -> None:
    """Rows, anomalies, batch sizes and an empty queue stand in the metrics afterwards."""
    metrics = Metrics(CollectorRegistry())
    engine, detector = Engine(metrics), make_detector(FakeRuntime())
    await ask(engine, detector, 0, 0, 1e6)
    labels = {"model": "table", "version": "1"}
    values = {
        name: metrics.registry.get_sample_value(name, labels)
        for name in ("amiss_rows_total", "amiss_anomalies_total", "amiss_queue_rows")
    }
    assert values == {"amiss_rows_total": 3, "amiss_anomalies_total": 1, "amiss_queue_rows": 0}
    assert metrics.registry.get_sample_value("amiss_batch_rows_sum", labels) == 3
    await engine.close()


async def test_parallel_runs_share_one_queue(make_detector: MakeDetector) -> None:
    """With two runs allowed a second batch starts while the first computes; a third waits."""
    runtime = FakeRuntime()
    engine, detector = make_engine(parallel_runs=2, max_batch_rows=1), make_detector(runtime)
    first = await occupy(engine, detector, runtime)
    others = [ask(engine, detector, i) for i in (1, 2)]
    await until(lambda: len(runtime.calls) == 2)
    await asyncio.sleep(0.02)
    assert len(runtime.calls) == 2
    runtime.free.set()
    scores = [answer.verdicts.score.tolist() for answer in await asyncio.gather(first, *others)]
    assert scores == [[0], [1], [2]]
    await engine.close()


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


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.integers(1, 7)),
            st.tuples(st.just("poison"), st.integers(1, 7)),
            st.tuples(
                st.sampled_from(["cancel", "swap", "hold", "free", "turn"]), st.integers(0, 9)
            ),
        ),
        max_size=30,
    ),
    st.integers(1, 3),
)
def test_no_interleaving_mixes_answers_up(
    make_detector: MakeDetector, script: list[tuple[str, int]], parallel_runs: int
) -> None:
    """Whoever comes, goes, fails or is swapped out meanwhile, each request gets its own rows'
    answer from the version it asked, or its own error."""

    async def play() -> None:
        engine = make_engine(max_batch_rows=5, parallel_runs=parallel_runs)
        runtimes = [FakeRuntime()]
        detector = make_detector(runtimes[0])
        asked: list[tuple[asyncio.Task[Scored], list[float]]] = []
        for step, number in script:
            if step in ("ask", "poison"):
                first = [1000.0 * len(runtimes) + 10 * len(asked) + i for i in range(number)]
                if step == "poison":
                    first[-1] = POISON
                asked.append((ask(engine, detector, *first), first))
            elif step == "cancel" and asked:
                asked[number % len(asked)][0].cancel()
            elif step == "swap":
                engine.retire(detector)
                runtimes.append(Shifted(by=float(len(runtimes))))
                detector = make_detector(runtimes[-1])
            elif step == "hold":
                runtimes[-1].free.clear()
            elif step == "free":
                runtimes[-1].free.set()
            else:
                await asyncio.sleep(0.001)
        for runtime in runtimes:
            runtime.free.set()
        answers = await asyncio.gather(*(task for task, _ in asked), return_exceptions=True)
        for answer, (task, first) in zip(answers, asked, strict=True):
            if isinstance(answer, Scored):
                version = 0.0 if first[0] < 2000 else float(int(first[0] // 1000) - 1)
                assert answer.verdicts.score.tolist() == [value + version for value in first]
            elif not task.cancelled():
                assert POISON in first
        await engine.close()

    asyncio.run(play())


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
