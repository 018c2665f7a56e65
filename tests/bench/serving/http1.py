"""Just enough HTTP/1.1 to send bytes made beforehand and see when they are answered."""

import asyncio
import re
from collections import deque
from typing import Self
from urllib.parse import SplitResult

from .closed_loop import Done
from .doors import Request

MOST_CONNECTIONS = 900  # select(2) takes 1,024 files
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)


class Http1Pool:
    """Keep-alive connections, one request at a time on each; as many as there are in flight.

    Beyond MOST_CONNECTIONS requests wait for one; their latency counts from when they were due.
    """

    def __init__(self, address: SplitResult, request: Request, done: Done) -> None:
        self._address, self._done = address, done
        self._message = message(address, request)
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[int] = deque()

    @classmethod
    async def open(
        cls, address: SplitResult, request: Request, done: Done, *, connections: int
    ) -> Self:
        """A pool with so many connections to begin with."""
        pool = cls(address, request, done)
        for _ in range(connections):
            pool._idle.append(await pool._connect())
        return pool

    def ask(self, index: int) -> None:
        """Send on an idle connection, or on a new one."""
        if self._idle:
            self._idle.pop().ask(index, self._message)
            return
        if len(self._all) + len(self._opening) >= MOST_CONNECTIONS:
            self._waiting.append(index)
            return
        task = asyncio.create_task(self._ask_on_new(index))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def answered(self, connection: "_Connection", index: int, *, ok: bool, size: int) -> None:
        """Take the connection back."""
        if self._waiting:
            connection.ask(self._waiting.popleft(), self._message)
        else:
            self._idle.append(connection)
        self._done(index, ok=ok, size=size)

    def close(self) -> None:
        """Hang up."""
        for connection in self._all:
            connection.transport.close()

    async def _ask_on_new(self, index: int) -> None:
        (await self._connect()).ask(index, self._message)

    async def _connect(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self), str(self._address.hostname), self._address.port or 0
        )
        self._all.append(connection)
        return connection


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, pool: Http1Pool) -> None:
        self._pool = pool
        self._received = b""
        self._index = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, index: int, message: bytes) -> None:
        self._index, self._received = index, b""
        self.transport.write(message)

    def data_received(self, data: bytes) -> None:
        self._received += data
        size = body_size(self._received)
        if size is not None:
            ok = self._received.startswith(b"HTTP/1.1 200")
            self._pool.answered(self, self._index, ok=ok, size=size)


def body_size(received: bytes) -> int | None:
    """Bytes of the body once the answer is complete, by its Content-Length; None before."""
    head, end, body = received.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    if not end or found is None or len(body) < int(found.group(1)):
        return None
    return int(found.group(1))


def message(address: SplitResult, request: Request) -> bytes:
    """The POST as it goes over the wire."""
    headers = {"host": address.netloc, "content-length": str(len(request.body)), **request.headers}
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    return f"POST {address.path} HTTP/1.1\r\n{lines}\r\n".encode() + request.body
