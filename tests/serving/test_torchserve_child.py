"""A command under the guard: what it prints, how it ends. With a shell as TorchServe."""

import os
import signal
from pathlib import Path

from amiss_serving.torchserve.child import Child

from .test_torchserve_guard import child_in, is_alive, wait_until


def start(script: str, folder: Path, said: list[str]) -> Child:
    return Child(
        ["bash", "-c", script], folder=folder, environment=os.environ, remove=[], take=said.append
    )


def test_each_line_is_handed_on_but_the_guards_own(tmp_path: Path) -> None:
    """Both streams, in order, also bytes that are no text; the guard's number of the group not."""
    said: list[str] = []
    child = start("echo one; echo two >&2; printf 'three\\377\\n'", tmp_path, said)
    wait_until(lambda: child.exit_code() is not None)
    child.stop()
    assert said == ["one\n", "two\n", "three\ufffd\n"]
    assert child.exit_code() == 0


def test_what_it_writes_is_for_its_owner_alone(tmp_path: Path) -> None:
    """A file made without a mode of its own has 0600: TorchServe's keys, before it mends that."""
    child = start("touch file", tmp_path, [])
    wait_until(lambda: child.exit_code() is not None)
    child.stop()
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_stop_leaves_nothing_even_when_the_guard_was_killed(tmp_path: Path) -> None:
    """The command and its child are gone after stop, which may be called twice."""
    child = start("sleep 300 & echo $! > pid; echo up; wait", tmp_path, said := [])
    sleeper = child_in(tmp_path / "pid")
    wait_until(lambda: said == ["up\n"] and child._group is not None)
    child._process.send_signal(signal.SIGKILL)
    child.stop()
    wait_until(lambda: not is_alive(sleeper))
    child.stop()
