"""Work for other processes, light to import so that a process starts in a blink."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from amiss_export.errors import BadInput


def squares(n: int) -> Iterator[int]:
    """0, 1, 4, ...: n numbers."""
    for i in range(n):
        yield i * i


def troubled(kind: str) -> Iterator[str]:
    """Its own name, then the trouble: ours, a bug, sudden death, or none."""
    yield kind
    if kind == "ours":
        raise BadInput("expected a, got b; do c")
    if kind == "bug":
        raise ZeroDivisionError("one over nought")
    if kind == "death":
        os._exit(3)


def meeting(folder: Path) -> Iterator[bool]:
    """Whether another process came into the folder while this one was there."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    yield len(list(folder.iterdir())) == 2


def endless(_: int) -> Iterator[int]:
    """Its process number, then nothing for a long time."""
    yield os.getpid()
    time.sleep(600)
