"""Pieces of work side by side, each in a process of its own, so that one that dies takes no other.

Processes are spawned, not forked: torch's threads do not survive a fork.
"""

import multiprocessing
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from amiss_export.errors import AmissError

Task = TypeVar("Task")
Product = TypeVar("Product")


@dataclass(frozen=True)
class Made(Generic[Product]):
    """Something that task number `task` yielded."""

    task: int
    product: Product


@dataclass(frozen=True)
class Ended:
    """Task number `task` is over; reason: why it failed, None when it did not."""

    task: int
    reason: str | None


def side_by_side(
    work: Callable[[Task], Iterator[Product]], tasks: Sequence[Task], *, at_once: int
) -> Generator[Made[Product] | Ended]:
    """What work(task) yields for each task, as it comes, and each task's end.

    work: a function of a module, so that another process can import it; it runs on one thread.
    Closing the iterator, or an exception such as Ctrl-C, kills what is still running; so does the
    death of this process.
    """
    waiting = list(enumerate(tasks))[::-1]
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, task = waiting.pop()
                connection, process = _start(work, task, number=number)
                running[connection] = (number, process)
            for ready in wait(list(running)):
                connection = next(c for c in running if c is ready)
                number, process = running[connection]
                event: Made[Product] | Ended = _receive(connection, process, number=number)
                if isinstance(event, Ended):
                    del running[connection]
                    _end(connection, process)
                yield event
    finally:
        for connection, (_, process) in running.items():
            process.kill()
            _end(connection, process)


def _start(
    work: Callable[[Task], Iterator[Product]], task: Task, *, number: int
) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, task, sender, number), daemon=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a child inherits it: Ctrl-C is ours
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    sender.close()  # the child holds the only other end: its death is the end of the stream
    return receiver, process


def _receive(connection: Connection, process: BaseProcess, *, number: int) -> Made[Product] | Ended:
    try:
        event: Made[Product] | Ended = connection.recv()
    except (EOFError, OSError):  # OSError: it died in the middle of a message
        process.join()
        return Ended(number, f"its process died with exit code {process.exitcode}")
    return event


def _end(connection: Connection, process: BaseProcess) -> None:
    connection.close()
    process.join()
    process.close()


def _run(
    work: Callable[[Task], Iterator[Product]], task: Task, sender: Connection, number: int
) -> None:
    """The child's life: everything made, then the end."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # joblib regrets that a daemon may have no children: one core each is what we want
    warnings.filterwarnings("ignore", "Loky-backed parallel loops")
    with threadpool_limits(limits=1):
        try:
            for product in work(task):
                sender.send(Made(number, product))
        except AmissError as error:
            sender.send(Ended(number, str(error)))
        except Exception:
            sender.send(Ended(number, traceback.format_exc().strip()))
        else:
            sender.send(Ended(number, None))


def _die_with_parent() -> None:
    """Never returns: a parent killed outright must not leave its children at work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
