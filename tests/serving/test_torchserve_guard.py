"""Whatever ends us, the guard ends what it guards. With a shell and its child as TorchServe."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

GUARD = [sys.executable, "-m", "amiss_serving.torchserve.guard"]
# A parent and a child in one group; the child's number is in the file once both run.
FAMILY = "trap '' TERM; sleep 300 & echo $! > {file}; wait"
WILLING = "sleep 300 & echo $! > {file}; wait"


def is_alive(pid: int) -> bool:
    """Whether it runs: a zombie that nobody has waited for yet does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], limit_s: float = 15) -> None:
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, "it did not come to that in time"
        time.sleep(0.02)


def child_in(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


def start(script: str, file: Path, *remove: Path) -> subprocess.Popen[bytes]:
    command = [*GUARD, *map(str, remove), "--", "bash", "-c", script.format(file=file)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.parametrize("script", [FAMILY, WILLING])
def test_the_group_ends_when_the_input_closes(script: str, tmp_path: Path) -> None:
    """Parent and child are gone, also when the parent ignores SIGTERM, and the paths removed."""
    folder, file = tmp_path / "folder", tmp_path / "key"
    folder.mkdir()
    (folder / "socket").touch()
    file.touch()
    with start(script, tmp_path / "pid", folder, file, tmp_path / "never-there") as guard:
        assert guard.stdin is not None
        child = child_in(tmp_path / "pid")
        guard.stdin.close()
        guard.wait(15)
    wait_until(lambda: not is_alive(child))
    assert not folder.exists()
    assert not file.exists()


def test_the_group_ends_when_we_are_killed(tmp_path: Path) -> None:
    """SIGKILL of the process that started the guard leaves nothing behind."""
    script = WILLING.format(file=tmp_path / "pid")
    code = (
        "import subprocess, time; "
        f"subprocess.Popen({[*GUARD, '--', 'bash', '-c', script]!r}, stdin=subprocess.PIPE, "
        "stdout=subprocess.PIPE, start_new_session=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as us:
        child = child_in(tmp_path / "pid")
        us.kill()
    wait_until(lambda: not is_alive(child))


def test_signals_for_the_guard_alone_do_not_end_it(tmp_path: Path) -> None:
    """SIGTERM to every process of a service, as systemd sends it, leaves the order to us."""
    with start(WILLING, tmp_path / "pid") as guard:
        assert guard.stdin is not None
        child = child_in(tmp_path / "pid")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            guard.send_signal(number)
        time.sleep(0.5)
        assert guard.poll() is None
        assert is_alive(child)
        guard.stdin.close()
    wait_until(lambda: not is_alive(child))


def test_nobody_reading_what_it_prints_ends_the_group(tmp_path: Path) -> None:
    """A parent that died before the first line leaves no command behind."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*GUARD, "--", "bash", "-c", WILLING.format(file=tmp_path / "pid")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.DEVNULL
    ) as guard:
        os.close(writing)
        guard.wait(15)
    file = tmp_path / "pid"
    started = file.read_text().strip() if file.exists() else ""
    wait_until(lambda: not (started and is_alive(int(started))))


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_the_exit_code_is_that_of_the_command(script: str, code: int, tmp_path: Path) -> None:
    """A command that ends by itself ends the guard; a signal is 128 and its number."""
    with start(script, tmp_path / "pid") as guard:
        assert guard.wait(15) == code
