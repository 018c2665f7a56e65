"""What every server here can do: be installed, started, and set up for what comes next."""

import re
import socket
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime

from ..doors import Door
from ..models import Model
from ..processes import Tree

FILES = Path(__file__).parent / "files"
ONNX_RUNTIME = f"onnxruntime=={onnxruntime.__version__}"  # the same build for all
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Cell:
    """One thing to measure: rows in a request, and callers, or a share of what 64 callers get."""

    rows: int
    in_flight: int | None = None
    load: float | None = None


@dataclass(frozen=True)
class Server:
    """A server that is ready. Its first door is the one for headlines and open loops.

    prepare: makes ready for a cell and returns the words for the configuration it then has.
    failures: its own counters of failed requests, as lines of its metrics page.
    """

    tree: Tree
    doors: tuple[Door, ...]
    prepare: Callable[[Cell], str]
    failures: Callable[[], list[str]] = field(default=list)


class Peer:
    """One kind of server."""

    name: str
    version: str

    def install(self, cache: Path) -> None:
        """Make what it needs, once, below the cache folder."""

    def start(self, model: Model, scratch: Path) -> AbstractContextManager[Server]:
        """The server, ready, on loopback; ended with all its processes on the way out."""
        raise NotImplementedError

    def tune(self, model: Model, scratch: Path, *, seconds: float, rows: tuple[int, ...]) -> None:
        """Find its best configuration, where there is a choice that matters."""


def free_ports(n: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def samples(url: str, pattern: str) -> list[str]:
    """Lines of a Prometheus page that the pattern fits and whose value is not 0."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  our own loopback
        return matching(answer.read().decode(), pattern)


def matching(page: str, pattern: str) -> list[str]:
    """The page's lines that the pattern fits from their beginning and whose value is not 0."""
    fitting = [line for line in page.splitlines() if re.match(pattern, line)]
    return [line for line in fitting if float(line.rsplit(" ", 1)[1]) != 0]
