"""Process trees: started, measured and ended as one, whatever their members do."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

START_LIMIT_S = 120.0
STOP_LIMIT_S = 10.0


class Tree:
    """A server and every process that it started, Linux only."""

    def __init__(self, root: "subprocess.Popen[bytes]", log: Path) -> None:
        self.root, self.log = root, log
        self._seen: dict[int, psutil.Process] = {}

    def members(self) -> list[psutil.Process]:
        """Those that run now. Children whose parent died are still known: by having been seen, or
        by the session that they share with the root."""
        for process in psutil.process_iter():
            if process.pid not in self._seen and self._is_ours(process):
                self._seen[process.pid] = process
        return [process for process in self._seen.values() if _runs(process)]

    def cpu_s(self) -> float:
        """User and system seconds so far, of those that run and the children they have reaped."""
        total = 0.0
        for process in self.members():
            try:
                total += sum(process.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue
        return total

    def peak_rss_mb(self) -> float:
        """MB, the sum of each process's own peak; memory that several share counts several times.

        Source: VmHWM in /proc/<pid>/status.
        """
        return sum(map(_peak_rss_kb, self.members())) / 1024

    def stop(self) -> None:
        """SIGTERM to the root, and after STOP_LIMIT_S, or once it is gone, SIGKILL to the rest."""
        members = self.members()
        self.root.terminate()
        try:
            self.root.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.root.kill()
            self.root.wait()
        for process in {*members, *self.members()}:
            if _runs(process):
                process.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self.root.pid or process.ppid() in self._seen
        except (OSError, psutil.NoSuchProcess):
            return False


@contextmanager
def running(
    command: Sequence[object], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[Tree]:
    """The tree of the command, in a session of its own; on the way out all of it is ended."""
    with log.open("wb") as output:
        root = subprocess.Popen(
            list(map(str, command)),
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    tree = Tree(root, log)
    try:
        yield tree
    finally:
        tree.stop()


def wait_until(ready: Callable[[], object], tree: Tree) -> None:
    """Return when ready() is true. Raises RuntimeError with the end of the log when it never is."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and tree.root.poll() is None:
        if ready():
            return
        time.sleep(0.1)
    said = tree.log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"expected a server that gets ready, got none within its time:\n{said}")


def answers(url: str) -> bool:
    """Whether an HTTP GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  our own loopback
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _peak_rss_kb(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) if lines else 0
