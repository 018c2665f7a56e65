"""The hot path: who is batched with whom, and who is told what."""

import asyncio
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from amiss_export.errors import AmissError, BadInput
from amiss_serving.engine import Engine
from amiss_serving.errors import DeadlineExceeded, QueueFull, TooLarge
from amiss_serving.metrics import Metrics

from .asking import FAR, ask, make_engine, occupy, until
from .conftest import POISON, FakeRuntime, MakeDetector

SCORE_ONLY = ("score",)


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
