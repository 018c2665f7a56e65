"""What the supervisor does about dead workers and a dead TorchServe. With a TorchServe of paper."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from amiss_export.errors import AmissError
from amiss_serving.errors import LoadFailed
from amiss_serving.torchserve import supervisor
from amiss_serving.torchserve.archives import Archive
from amiss_serving.torchserve.management import NoSuchModel, Worker
from amiss_serving.torchserve.output import Output
from amiss_serving.torchserve.run import Run
from amiss_serving.torchserve.supervisor import Supervisor

from .test_torchserve_guard import wait_until

A, B = Archive("a", "1", "a.mar"), Archive("b", "2", "b.mar")


@dataclass
class PaperRun:
    """One run of a TorchServe that is not there; the test sets what it shows."""

    pids: dict[str, list[int]]
    code: int | None = None
    unknown: bool = False
    last_answer: float = 1e12
    output: Output = field(default_factory=Output)
    replaced: list[tuple[str, int]] = field(default_factory=list)
    renewals: int = 0
    stopped: bool = False

    @property
    def child(self) -> "PaperRun":
        return self

    @property
    def keys(self) -> "PaperRun":
        return self

    def renew_due(self) -> None:
        self.renewals += 1
        raise AmissError("not now")

    def exit_code(self) -> int | None:
        return self.code

    def stop(self) -> None:
        self.stopped = True

    def workers(self, archive: Archive) -> tuple[Worker, ...]:
        if self.unknown:
            raise NoSuchModel(f"no model {archive.name}")
        return tuple(Worker(str(pid), pid, is_ready=True) for pid in self.pids[archive.name])

    def replace_workers(self, archive: Archive, workers: int) -> None:
        self.replaced.append((archive.name, workers))


class Watched:
    """A supervisor of paper runs, and what it told."""

    def __init__(self, *runs: PaperRun, revive_s: float = 1e9) -> None:
        self.told: list[tuple[str, str]] = []
        self.runs = iter(runs)
        self.supervisor = Supervisor(
            lambda: cast(Run, next(self.runs)),
            [A, B],
            workers=1,
            revive_s=revive_s,
            on_restart=lambda name: self.told.append(("restart", name)),
            on_lost=lambda name: self.told.append(("lost", name)),
        )


Watch = Callable[..., Watched]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Makes supervisors that end with the test."""
    made: list[Watched] = []

    def make(*runs: PaperRun, **options: Any) -> Watched:
        made.append(Watched(*runs, **options))
        return made[-1]

    yield make
    for each in made:
        each.supervisor.stop()


def test_start_waits_for_every_model(watch: Watch) -> None:
    """It returns only when the second model has its worker too."""
    run = PaperRun({"a": [1], "b": []})
    supervisor = watch(run).supervisor
    started = threading.Event()
    thread = threading.Thread(target=lambda: (supervisor.start(10), started.set()))
    thread.start()
    assert not started.wait(0.5)
    run.pids["b"] = [2]
    assert started.wait(15)
    thread.join()


def test_a_worker_that_dies_while_starting_ends_the_wait_with_its_cause(watch: Watch) -> None:
    """Long before the time is over, the error names the model and the worker's exception."""
    run = PaperRun({"a": [1], "b": []})
    for thread, message in (
        ("W-9000-b_2-stdout", "Traceback (most recent call last):"),
        ("W-9000-b_2-stdout", "ValueError: broken"),
        ("W-9000-b_2", "Retry worker: 9000 in 1 seconds."),
    ):
        run.output.take(
            f'{{"level":"INFO","logger":"L","thread":"{thread}","message":"{message}","error":""}}'
        )
    with pytest.raises(LoadFailed, match=r"detector 'b' did not come up .* ValueError: broken"):
        watch(run).supervisor.start(60)


def test_a_torchserve_that_ends_or_lacks_a_model_does_not_start(watch: Watch) -> None:
    """So does one that takes too long: the start fails and says which it was."""
    ended = PaperRun({"a": [], "b": []}, code=1)
    ended.output.take("no space left on device")
    with pytest.raises(LoadFailed, match=r"ended instead of starting: no space left"):
        watch(ended).supervisor.start(60)
    with pytest.raises(LoadFailed, match="'a' did not come up"):
        watch(PaperRun({"a": [], "b": []}, unknown=True)).supervisor.start(60)
    with pytest.raises(LoadFailed, match="'b' did not come up"):
        watch(PaperRun({"a": [1], "b": []})).supervisor.start(0)


def test_a_port_that_was_taken_meanwhile_is_tried_again(watch: Watch) -> None:
    """The second launch, which chooses other free ports, counts."""
    taken, fine = PaperRun({"a": [], "b": []}, code=1), PaperRun({"a": [1], "b": [2]})
    taken.output.take("java.net.BindException: Address already in use")
    supervisor = watch(taken, fine).supervisor
    supervisor.start(10)
    assert supervisor.run is cast(Run, fine)
    assert taken.stopped


def test_a_replaced_worker_is_told_after_its_loss(watch: Watch) -> None:
    """A dead worker is told within a second, the new one too, of its own model alone."""
    run = PaperRun({"a": [1], "b": [2]})
    watched = watch(run)
    watched.supervisor.start(10)
    run.pids["a"] = []
    wait_until(lambda: watched.told == [("lost", "a")])
    run.pids["a"] = [3]
    wait_until(lambda: watched.told == [("lost", "a"), ("restart", "a")])


def test_a_dead_torchserve_is_started_anew(watch: Watch) -> None:
    """Every model is lost, the next run's workers are restarts, and the old run is cleared away."""
    first, second = PaperRun({"a": [1], "b": [2]}), PaperRun({"a": [3], "b": [4]})
    watched = watch(first, second)
    watched.supervisor.start(10)
    first.code = 137
    wait_until(lambda: len(watched.told) == 4)
    assert watched.told == [("lost", "a"), ("lost", "b"), ("restart", "a"), ("restart", "b")]
    assert first.stopped
    assert watched.supervisor.run is cast(Run, second)


def test_a_torchserve_that_has_fallen_silent_is_started_anew(watch: Watch) -> None:
    """One whose management port has not answered for long is as good as dead."""
    first, second = PaperRun({"a": [1], "b": [2]}), PaperRun({"a": [3], "b": [4]})
    watched = watch(first, second)
    watched.supervisor.start(10)
    first.last_answer = -1e12
    wait_until(lambda: watched.supervisor.run is cast(Run, second))


def test_a_model_without_workers_for_long_gets_new_ones(watch: Watch) -> None:
    """TorchServe's ever longer waiting is cut short, for that model, as often as it takes."""
    run = PaperRun({"a": [1], "b": [2]})
    watched = watch(run, revive_s=0.1)
    watched.supervisor.start(10)
    run.pids["a"] = []
    wait_until(lambda: run.replaced == [("a", 1), ("a", 1)])
    run.pids["b"] = []
    wait_until(lambda: ("b", 1) in run.replaced)


def test_nobody_waits_for_torchserves_own_back_off(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model none of whose workers is coming up gets new ones, however long one may take to."""
    monkeypatch.setattr(supervisor, "_BACK_OFF_LIMIT_S", 0.1)
    run = PaperRun({"a": [1], "b": [2]})
    watch(run).supervisor.start(10)
    run.pids["a"] = []
    wait_until(lambda: ("a", 1) in run.replaced)


def test_what_goes_wrong_while_watching_does_not_end_it(watch: Watch) -> None:
    """Keys that are not renewed are tried at every look, and a broken run is looked at again."""
    run = PaperRun({"a": [1], "b": [2]})
    watched = watch(run)
    watched.supervisor.start(10)
    del run.pids["a"]  # a KeyError in the middle of a look
    wait_until(lambda: run.renewals >= 2)
    run.pids["a"] = []
    wait_until(lambda: watched.told == [("lost", "a")])
