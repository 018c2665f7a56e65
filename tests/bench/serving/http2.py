"""Just enough HTTP/2 (RFC 9113) to send gRPC requests and see when they are answered.

Header blocks are sent as literals and received ones not read (RFC 7541): a good answer is one that
has a body, since gRPC's errors have none, and whose stream ends.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Iterator
from typing import Self
from urllib.parse import SplitResult

from .closed_loop import Done
from .doors import Request

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
FRAME_HEADER_BYTES = 9
FRAME_BYTES = 16_384
WINDOW_BYTES = 65_535
LARGEST_WINDOW_BYTES = 2**31 - 1


class Http2Pool:
    """A few connections that take turns, with as many streams as there are requests in flight."""

    def __init__(self, connections: "list[_Connection]") -> None:
        self._connections = connections

    @classmethod
    async def open(
        cls, address: SplitResult, request: Request, done: Done, *, connections: int
    ) -> Self:
        """A pool of so many connections. Raises ValueError when a body exceeds a window."""
        if len(request.body) > WINDOW_BYTES:
            raise ValueError(f"a body must be <= {WINDOW_BYTES} bytes, got {len(request.body)}")
        loop, opened = asyncio.get_running_loop(), []
        for _ in range(connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(address, request, done),
                str(address.hostname),
                address.port or 0,
            )
            opened.append(connection)
        return cls(opened)

    def ask(self, index: int) -> None:
        """Send on the connection whose turn it is."""
        self._connections[index % len(self._connections)].ask(index)

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            connection.transport.close()


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, address: SplitResult, request: Request, done: Done) -> None:
        self._block, self._body, self._done = header_block(address, request), request.body, done
        self._received = b""
        self._next_stream = 1
        self._window = WINDOW_BYTES  # what we may send before the server grants more
        self._held: deque[int] = deque()
        self._index: dict[int, int] = {}
        self._size: dict[int, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        grant = struct.pack(">I", LARGEST_WINDOW_BYTES - WINDOW_BYTES)
        transport.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, grant))

    def ask(self, index: int) -> None:
        self._held.append(index)
        self._send_held()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = 0
        for kind, flags, stream, payload, end in frames(self._received):  # noqa: B007  the last
            self._take(kind, flags, stream, payload)
        self._received = self._received[end:]

    def _send_held(self) -> None:
        while self._held and self._window >= len(self._body):
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            self._window -= len(self._body)
            self._index[stream] = self._held.popleft()
            self.transport.write(request_frames(stream, self._block, self._body))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._size[stream] = self._size.get(stream, 0) + len(payload)
        if kind == RST_STREAM or (kind in {DATA, HEADERS} and flags & END_STREAM):
            size = self._size.pop(stream, 0)
            self._done(self._index.pop(stream), ok=kind != RST_STREAM and size > 0, size=size)
        elif kind in {SETTINGS, PING} and not flags & ACK:
            self.transport.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
            self._send_held()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame: 24 bits of length, type, flags, stream, payload."""
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def frames(received: bytes) -> Iterator[tuple[int, int, int, bytes, int]]:
    """Type, flags, stream and payload of each complete frame, and where it ends."""
    start = 0
    while len(received) >= start + FRAME_HEADER_BYTES:
        head, flags, stream = struct.unpack_from(">IBI", received, start)
        end = start + FRAME_HEADER_BYTES + (head >> 8)
        if len(received) < end:
            return
        yield head & 0xFF, flags, stream, received[start + FRAME_HEADER_BYTES : end], end
        start = end


def request_frames(stream: int, block: bytes, body: bytes) -> bytes:
    """HEADERS, then the body in DATA frames, the last of which ends our side of the stream."""
    sent = [frame(HEADERS, END_HEADERS, stream, block)]
    for start in range(0, len(body), FRAME_BYTES):
        flags = END_STREAM if start + FRAME_BYTES >= len(body) else 0
        sent.append(frame(DATA, flags, stream, body[start : start + FRAME_BYTES]))
    return b"".join(sent)


def header_block(address: SplitResult, request: Request) -> bytes:
    """HPACK without state: two entries of the static table, the rest literals without indexing."""
    fields = {":path": address.path, ":authority": address.netloc, **request.headers}
    literals = [b"\x00" + _text(key) + _text(value) for key, value in fields.items()]
    return b"\x83\x86" + b"".join(literals)  # :method POST, :scheme http


def _text(value: str) -> bytes:
    if len(value) >= 127:
        raise ValueError(f"a header must be shorter than 127 bytes, got {value!r}")
    return bytes([len(value)]) + value.encode()
