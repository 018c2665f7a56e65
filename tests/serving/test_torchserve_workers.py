"""What is concluded from one look at a model's workers after the other."""

import os
import subprocess

from amiss_serving.torchserve.management import Worker
from amiss_serving.torchserve.workers import Change, Workers

NOTHING = Change()


def ready(*pids: int) -> list[Worker]:
    return [Worker(str(9000 + i), pid, is_ready=True) for i, pid in enumerate(pids)]


def test_first_workers_are_no_restarts() -> None:
    """Two workers that come up one after the other are none, however often they are seen."""
    workers = Workers(2, now=0)
    assert [workers.look(ready(*pids), 1) for pids in ((), (1,), (1, 2), (1, 2))] == [NOTHING] * 4
    assert (workers.alive, workers.restarts) == ({1, 2}, 0)


def test_a_worker_in_the_place_of_another_is_a_restart() -> None:
    """It is counted when the new one is ready, once."""
    workers = Workers(2, now=0)
    workers.look(ready(1, 2), 1)
    assert workers.look(ready(2), 2) == NOTHING
    assert workers.look(ready(2, 3), 3) == Change(restarted=1)
    assert workers.look(ready(2, 3), 4) == NOTHING
    assert workers.restarts == 1


def test_a_worker_is_starting_while_its_process_lives_and_is_not_ready() -> None:
    """One that died keeps its number, and one that waits to be started has none."""
    workers = Workers(1, now=0)
    living, dead = os.getpid(), subprocess.Popen(["true"])
    dead.wait()
    for pid, is_starting in ((living, True), (dead.pid, False), (0, False)):
        workers.look([Worker("9000", pid, is_ready=False)], 1)
        assert workers.is_starting == is_starting
    workers.look(ready(living), 2)
    assert not workers.is_starting


def test_the_last_live_worker_that_goes_is_a_loss() -> None:
    """One of two is none; then the time without any is counted until there is one."""
    workers = Workers(2, now=0)
    workers.look(ready(1, 2), 1)
    assert workers.look(ready(1), 2) == NOTHING
    assert workers.look([Worker("9000", 1, is_ready=False)], 3) == Change(lost=True)
    assert workers.look([], 4) == NOTHING
    assert workers.none_for(5) == 2
    assert workers.look(ready(5, 6), 6) == Change(restarted=2)
    assert workers.none_for(9) == 0


def test_a_worker_that_is_not_ready_is_not_alive() -> None:
    """TorchServe lists dead and loading workers too."""
    workers = Workers(1, now=0)
    workers.look([Worker("9000", 7, is_ready=False)], 1)
    assert (workers.alive, workers.none_for(3)) == (frozenset(), 3)
