"""A tiny process between us and TorchServe, so that TorchServe never outlives us.

    python -m amiss_serving.torchserve.guard [PATH ...] -- COMMAND ...

runs the command in a process group of its own, prints the group's number in a line of its own, and
ends the whole group, Java and its workers, when its own standard input closes: that happens when
whoever started it ends, even by SIGKILL. Then it removes the paths. (The kernel's parent-death
signal is no substitute: it follows the thread that forked, not the process.)
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GROUP = "amiss guard: process group "  # begins the guard's own line
PATIENCE_S = 4.0  # between SIGTERM and SIGKILL
_LOOK_S = 0.2  # how long an end of the command itself may go unnoticed
_STDIN = 0
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # what ends us is the closed input alone


def main(arguments: Sequence[str]) -> int:
    """The command's exit code, after its whole group was ended and the paths were removed."""
    split = arguments.index("--")
    paths, command = arguments[:split], arguments[split + 1 :]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603
    try:
        for number in _IGNORED:  # only now: children would inherit it
            signal.signal(number, signal.SIG_IGN)
        print(f"{GROUP}{process.pid}", flush=True)
        while process.poll() is None and _is_open():
            pass
    finally:  # whatever happens, e.g. nobody reads what we print any more
        _end(process)
        for path in map(Path, paths):
            _remove(path)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _is_open() -> bool:
    """Whether standard input still is after a short while. What is written there is ignored."""
    readable, _, _ = select.select([_STDIN], [], [], _LOOK_S)
    return not readable or bool(os.read(_STDIN, 4096))


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE_S)
    _signal_group(process.pid, signal.SIGKILL)  # the group outlives its first process
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
