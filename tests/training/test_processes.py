"""Work in other processes: side by side, none lost by another's death, none left behind."""

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from amiss_training.processes import Ended, Made, _receive, side_by_side
from parallel_work import endless, meeting, squares, troubled

PARENT = """
from amiss_training.processes import side_by_side
from parallel_work import endless

if __name__ == "__main__":
    for made in side_by_side(endless, [0], at_once=1):
        print(made.product, flush=True)
"""


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def dies(pid: int) -> bool:
    """Whether the process goes away within half a minute."""
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_everything_made_arrives_in_order_with_its_end() -> None:
    """Each task's products come in the order they were made, then one end without a reason."""
    events = list(side_by_side(squares, [3, 0, 2], at_once=2))
    for task, expected in enumerate(([0, 1, 4], [], [0, 1])):
        mine = [event for event in events if event.task == task]
        assert mine == [*(Made(task, product) for product in expected), Ended(task, None)]


def test_two_at_once_meet(tmp_path: Path) -> None:
    """Two tasks that wait for each other both see the other: they run at the same time."""
    events = side_by_side(meeting, [tmp_path, tmp_path], at_once=2)
    assert [event.product for event in events if isinstance(event, Made)] == [True, True]


def test_a_task_that_fails_takes_no_other_with_it() -> None:
    """Our errors give their message, bugs a traceback, a dead process its exit code."""
    kinds = ["ours", "bug", "death", "none"]
    events = list(side_by_side(troubled, kinds, at_once=2))
    assert sorted(event.product for event in events if isinstance(event, Made)) == sorted(kinds)
    reasons = {kinds[event.task]: event.reason for event in events if isinstance(event, Ended)}
    assert reasons["ours"] == "expected a, got b; do c"
    assert "ZeroDivisionError: one over nought" in str(reasons["bug"])
    assert reasons["death"] == "its process died with exit code 3"
    assert reasons["none"] is None


def test_half_a_message_is_the_death_of_its_sender() -> None:
    """A process killed while it sends ends its own task, not the sweep."""
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    os.write(sender.fileno(), struct.pack("!i", 100) + b"half")  # 100 bytes announced
    sender.close()
    assert _receive(receiver, process, number=4) == Ended(4, "its process died with exit code 0")
    receiver.close()


def test_closing_kills_what_still_runs() -> None:
    """After the iterator is closed, as Ctrl-C does, the child is gone."""
    with closing(side_by_side(endless, [0], at_once=1)) as events:
        made = next(events)
        assert isinstance(made, Made)
        assert is_alive(made.product)
    assert not is_alive(made.product)


def test_ctrl_c_stays_with_the_parent_until_it_kills() -> None:
    """A child ignores the terminal's SIGINT: the parent alone decides."""
    with closing(side_by_side(endless, [0], at_once=1)) as events:
        made = next(events)
        assert isinstance(made, Made)
        os.kill(made.product, signal.SIGINT)
        time.sleep(0.2)
        assert is_alive(made.product)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_killed_parent_leaves_no_child_at_work(tmp_path: Path) -> None:
    """When the parent dies without a chance to clean up, the child ends itself."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    paths = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env={**os.environ, **paths}
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert dies(child)
