"""The workers of one model: which are alive, which were replaced, since when there is none."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from amiss_serving.torchserve.management import Worker


@dataclass(frozen=True)
class Change:
    """What one look found. restarted: workers that took the place of another. lost: the last one
    that was alive is not."""

    restarted: int = 0
    lost: bool = False


class Workers:
    """What is known of one model's workers. expected: how many there should be."""

    def __init__(self, expected: int, *, now: float) -> None:
        self.alive: frozenset[int] = frozenset()  # their pids
        self.restarts = 0
        self.is_starting = False
        self.none_since = now
        self._expected = expected
        self._seen: set[int] = set()

    def look(self, found: Sequence[Worker], now: float) -> Change:
        """Compare with the look before. now: seconds of a monotonic clock."""
        before = self.alive
        self.alive = frozenset(worker.pid for worker in found if worker.is_ready)
        self.is_starting = any(not w.is_ready and _is_running(w.pid) for w in found)
        self._seen |= self.alive
        restarted = max(0, len(self._seen) - self._expected) - self.restarts
        self.restarts += restarted
        if before and not self.alive:
            self.none_since = now
        return Change(restarted, lost=bool(before) and not self.alive)

    def none_for(self, now: float) -> float:
        """Seconds without a live worker; 0 while there is one."""
        return 0.0 if self.alive else now - self.none_since


def _is_running(pid: int) -> bool:
    """Whether there is a process of that number; a worker that died keeps its number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return pid > 0
