"""Runs of the model on the thread that requests come in on: when, whose, and never mixed up."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.engine import Engine, Ticket
from amiss_serving.lane import LONG_RUN_S, QUICK_S
from amiss_serving.metrics import Metrics
from amiss_serving.runs import Result
from amiss_serving.turn import Turn

from .conftest import POISON, FakeRuntime, MakeDetector, rows

FAR = 1e9


@dataclass
class TracedRuntime(FakeRuntime):
    """Remembers which thread each run was made on; takes seconds a run or a row where told to."""

    threads: list[int] = field(default_factory=list)
    takes_s: float = 0.0
    row_takes_s: float = 0.0

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        self.threads.append(threading.get_ident())
        time.sleep(self.takes_s + len(x) * self.row_takes_s)
        return super().run(x, outputs)


class Asking:
    """An engine, one turn, and what came of every request. As a context it ends the threads."""

    asked = -1

    def __init__(self, **options: Any) -> None:
        self.engine = Engine(Metrics(CollectorRegistry()), **options)
        self.turn = Turn(time.monotonic)
        self.results: dict[int, Result] = {}

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run(self.engine.close())

    def ask(
        self,
        detector: LoadedDetector,
        *first: float,
        in_turn: bool = True,
        reconstruct: bool = False,
    ) -> Ticket:
        """Submit the rows; the result is kept under the number of the request."""
        number = self.asked = self.asked + 1
        return self.engine.submit(
            detector,
            rows(*first),
            deadline_s=FAR,
            done=partial(self.results.__setitem__, number),
            reconstruct=reconstruct,
            turn=self.turn if in_turn else None,
        )

    def end_turns(self) -> None:
        """What a door's loop does while nothing comes in."""
        while self.turn.is_due:
            self.turn.run()

    def until(self, condition: Callable[[], bool]) -> None:
        """End turns until then, 5 s at most."""
        end_s = time.monotonic() + 5
        while not condition():
            self.end_turns()
            assert time.monotonic() < end_s
            time.sleep(0.0005)

    def scores(self, number: int) -> list[float]:
        """Those of an answered request."""
        result = self.results[number]
        assert isinstance(result, Scored), result
        return result.verdicts.score.tolist()


@pytest.fixture
def asking() -> Iterator[Asking]:
    with Asking() as one:
        yield one


def known_as_quick(asking: Asking, detector: LoadedDetector) -> None:
    """Have the engine see a run; until then it knows nothing and leaves it to a thread."""
    asking.ask(detector, 0)
    asking.until(lambda: 0 in asking.results)


@pytest.mark.parametrize(("takes_s", "is_here"), [(0.0, True), (4 * QUICK_S, False)])
def test_a_run_is_made_here_once_it_is_known_to_be_quick(
    make_detector: MakeDetector, asking: Asking, takes_s: float, is_here: bool
) -> None:
    """The first goes to a thread of the lane; so do all that take long."""
    runtime = TracedRuntime(takes_s=takes_s)
    detector = make_detector(runtime)
    known_as_quick(asking, detector)
    asking.ask(detector, 1)
    asking.until(lambda: 1 in asking.results)
    assert [thread == threading.get_ident() for thread in runtime.threads] == [False, is_here]
    assert asking.scores(1) == [1]


def test_what_came_in_during_a_turn_shares_a_run(
    make_detector: MakeDetector, asking: Asking
) -> None:
    """Nothing is computed before the turn ends; then all of it at once."""
    runtime = TracedRuntime()
    detector = make_detector(runtime)
    known_as_quick(asking, detector)
    for value in range(1, 4):
        asking.ask(detector, value)
    assert len(runtime.calls) == 1
    asking.end_turns()
    assert [n for n, _ in runtime.calls] == [1, 3]
    assert [asking.scores(number) for number in range(1, 4)] == [[1], [2], [3]]


def test_a_batch_here_is_cut_where_it_would_take_long(
    make_detector: MakeDetector, asking: Asking
) -> None:
    """A model that takes a tenth of a long run a row runs on ten rows at a time."""

    # On the CPU: where a slow moment leaves the rows to the lane's own thread, it cuts as well.
    runtime = TracedRuntime(device="cpu", row_takes_s=LONG_RUN_S / 10)
    detector = make_detector(runtime)
    known_as_quick(asking, detector)
    for value in range(1, 31):
        asking.ask(detector, value)
    asking.until(lambda: len(asking.results) == 31)
    assert max(n for n, _ in runtime.calls) <= 10
    assert [asking.scores(number) for number in range(1, 31)] == [[v] for v in range(1, 31)]


def test_runs_on_a_processor_are_not_longer_than_pays(
    make_detector: MakeDetector, asking: Asking
) -> None:
    """Requests that wait for a thread are run a few at a time there; elsewhere all at once."""

    for device, is_short in (("cpu", True), ("cuda:0", False)):
        runtime = TracedRuntime(device=device, row_takes_s=LONG_RUN_S / 5)
        detector = make_detector(runtime)
        known, asked = len(asking.results), range(1, 32)
        asking.ask(detector, 0, in_turn=False)
        asking.until(lambda known=known: len(asking.results) > known)  # type: ignore[misc]
        numbers = [asking.asked + value for value in asked]
        for value in asked:
            asking.ask(detector, value, in_turn=False)
        asking.until(lambda known=known: len(asking.results) == known + 32)  # type: ignore[misc]
        assert (max(n for n, _ in runtime.calls) <= 5) == is_short
        assert [asking.scores(number) for number in numbers] == [[v] for v in asked]


def test_several_detectors_run_beside_each_other(
    make_detector: MakeDetector, asking: Asking
) -> None:
    """One of them here, the other in a thread of its own: none waits for the other's model."""
    runtimes = [TracedRuntime(), TracedRuntime()]
    detectors = [make_detector(runtime) for runtime in runtimes]
    for detector in detectors:
        asking.ask(detector, 0)
    asking.until(lambda: len(asking.results) == 2)
    for runtime in runtimes:
        runtime.threads.clear()
    for detector in detectors:
        asking.ask(detector, 1)
    asking.until(lambda: len(asking.results) == 4)
    here = [runtime.threads == [threading.get_ident()] for runtime in runtimes]
    assert sorted(here) == [False, True]


def test_a_turn_tells_how_long_its_run_has_taken(
    make_detector: MakeDetector, asking: Asking
) -> None:
    """So that somebody else can see that a model does not come back."""
    runtime = TracedRuntime()
    detector = make_detector(runtime)
    known_as_quick(asking, detector)
    assert asking.turn.taken_s() < 0
    runtime.free.clear()
    runtime.entered.clear()
    seen: list[float] = []

    def watch() -> None:
        assert runtime.entered.wait(5)
        time.sleep(0.02)
        seen.append(asking.turn.taken_s())
        runtime.free.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    asking.ask(detector, 1)
    asking.end_turns()
    watcher.join()
    assert 0.01 < seen[0] < 5
    assert asking.turn.taken_s() < 0


def test_a_turn_that_was_released_leaves_the_rest_to_the_lane(
    make_detector: MakeDetector, asking: Asking
) -> None:
    """A model that comes back after all: what came in behind it is computed by nobody's turn."""
    runtime = TracedRuntime()
    detector = make_detector(runtime)
    known_as_quick(asking, detector)
    runtime.free.clear()
    runtime.entered.clear()
    asking.ask(detector, 1)
    stuck = threading.Thread(target=asking.turn.run)
    stuck.start()
    assert runtime.entered.wait(5)
    asking.turn.release()
    assert asking.turn.taken_s() < 0
    asking.ask(detector, 2)
    runtime.free.set()
    stuck.join()
    assert not asking.turn.is_due
    end_s = time.monotonic() + 5
    while len(asking.results) < 3 and time.monotonic() < end_s:
        time.sleep(0.001)
    assert [asking.scores(number) for number in (1, 2)] == [[1], [2]]


def test_a_full_batch_does_not_wait_for_the_delay(make_detector: MakeDetector) -> None:
    """Whoever asked in a turn wakes a lane that gathers, as everybody else does."""
    with Asking(max_batch_rows=3, batch_delay_s=60.0) as asking:
        detector = make_detector(FakeRuntime())
        for value in range(3):
            asking.ask(detector, value)
        asking.until(lambda: len(asking.results) == 3)


def test_a_reconstruction_is_not_taken_for_quick_because_a_score_is(
    make_detector: MakeDetector, asking: Asking
) -> None:
    """They are two graphs: nothing is known of one by the other, and no run mixes them."""

    class Slowly(TracedRuntime):
        def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
            time.sleep(4 * QUICK_S * (len(outputs) - 1))
            return super().run(x, outputs)

    runtime = Slowly()
    detector = make_detector(runtime)
    known_as_quick(asking, detector)
    for value in range(1, 9):
        asking.ask(detector, value, reconstruct=value % 2 == 0)
    asking.until(lambda: len(asking.results) == 9)
    calls = zip(runtime.calls, runtime.threads, strict=True)
    here = [outputs for (_, outputs), thread in calls if thread == threading.get_ident()]
    assert set(here) == {("score",)}
    assert [asking.scores(number) for number in range(1, 9)] == [[v] for v in range(1, 9)]


def test_requests_leave_nothing_to_the_garbage_collector(
    make_detector: MakeDetector, asking: Asking
) -> None:
    """A cycle in each would stop the service for a tenth of a second every few thousand."""
    detector = make_detector(FakeRuntime())
    known_as_quick(asking, detector)
    gc.collect()
    gc.disable()
    try:
        for value in range(100):
            asking.ask(detector, value, POISON if value % 10 == 0 else 0).cancel()
            asking.ask(detector, value)
            asking.end_turns()
        assert gc.collect() < 20
    finally:
        gc.enable()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "ask", "poison", "cancel", "swap", "elsewhere", "end"]),
            st.integers(1, 7),
        ),
        max_size=30,
    ),
    st.integers(1, 2),
)
def test_no_interleaving_mixes_answers_up(
    make_detector: MakeDetector, script: list[tuple[str, int]], parallel_runs: int
) -> None:
    """Beside requests that come in elsewhere, each gets its own rows' answer or its own error."""
    with Asking(max_batch_rows=5, parallel_runs=parallel_runs) as asking:
        play(make_detector, asking, script)


def play(make_detector: MakeDetector, asking: Asking, script: list[tuple[str, int]]) -> None:
    """Do each step of the script and check what came of it."""
    detector = make_detector(FakeRuntime())
    known_as_quick(asking, detector)
    sent: list[tuple[Ticket, list[float]]] = []
    cancelled: set[int] = set()
    for step, number in script:
        if step in ("ask", "poison", "elsewhere"):
            first = [10.0 * len(sent) + i for i in range(number)]
            if step == "poison":
                first[-1] = POISON
            sent.append((asking.ask(detector, *first, in_turn=step != "elsewhere"), first))
        elif step == "cancel" and sent:
            chosen = number % len(sent)
            if sent[chosen][0].cancel():
                cancelled.add(chosen)
        elif step == "swap":
            asking.engine.retire(detector)
            detector = make_detector(FakeRuntime())
        elif step == "end":
            asking.end_turns()
    asking.until(lambda: len(asking.results) == 1 + len(sent) - len(cancelled))
    for chosen, (_, first) in enumerate(sent):
        result = asking.results.get(chosen + 1)
        if chosen in cancelled:
            assert result is None
        elif POISON in first:
            assert isinstance(result, RuntimeError)
        else:
            np.testing.assert_array_equal(asking.scores(chosen + 1), first)
