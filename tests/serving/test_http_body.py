"""Bodies are bounded while they arrive, in size and in time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from amiss_serving.errors import CallerGone, DeadlineExceeded, TooLarge
from amiss_serving.http_body import read_images, read_json, unless_gone

Chunk = Callable[[int], bytes]


class Sender:
    """A caller whose i-th chunk is chunk(i), without end; counts what was taken."""

    def __init__(self, chunk: Chunk, headers: dict[str, str] | None = None) -> None:
        raw = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
        self._chunk = chunk
        self.taken = 0
        self.request = Request({"type": "http", "headers": raw}, self.receive)

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        body = self._chunk(self.taken)
        self.taken += 1
        return {"type": "http.request", "body": body, "more_body": True}


async def test_reading_stops_where_the_limit_is() -> None:
    """Of an endless body of ten-byte chunks only four are taken for a limit of thirty bytes."""
    sender = Sender(lambda _: b" " * 10)
    with pytest.raises(TooLarge, match="30 bytes"):
        await read_json(sender.request, max_bytes=30, timeout_s=5)
    assert sender.taken == 4


async def test_an_announced_length_over_the_limit_is_not_read_at_all() -> None:
    """The header alone is enough to refuse."""
    sender = Sender(lambda _: b"", {"content-length": "31"})
    with pytest.raises(TooLarge):
        await read_json(sender.request, max_bytes=30, timeout_s=5)
    assert sender.taken == 0


async def test_a_body_that_trickles_in_is_given_up() -> None:
    """One empty chunk after another does not hold the service for longer than the timeout."""
    sender = Sender(lambda _: b"")
    with pytest.raises(DeadlineExceeded, match=r"0\.05 seconds"):
        await read_json(sender.request, max_bytes=30, timeout_s=0.05)


async def test_an_endless_multipart_body_is_bounded_too() -> None:
    """A picture without end is cut off at the limit, its memory freed."""

    def chunk(i: int) -> bytes:
        head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        return head if i == 0 else b"x" * 100

    sender = Sender(chunk, {"content-type": "multipart/form-data; boundary=b"})
    with pytest.raises(TooLarge):
        await read_images(sender.request, max_bytes=1000, max_images=3, timeout_s=5)
    assert sender.taken <= 11


async def test_work_is_cancelled_when_the_caller_hangs_up() -> None:
    """The work is cancelled and the caller's absence reported; work that ends first is returned."""

    async def forever() -> None:
        await asyncio.Event().wait()

    async def at_once() -> int:
        return 7

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def still_there() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(CallerGone):
        await unless_gone(Request({"type": "http", "headers": []}, gone), forever())
    there = Request({"type": "http", "headers": []}, still_there)
    assert await unless_gone(there, at_once()) == 7
