"""Reading HTTP bodies: bounded while they arrive, not after, and only while the caller is there."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from amiss_export.errors import BadInput
from amiss_serving.errors import CallerGone, DeadlineExceeded, TooLarge

FIELD = "images"
T = TypeVar("T")


class _InMemory(MultiPartParser):
    """Never spills to disk: the body is bounded, and the file system may be read-only."""

    spool_max_size = sys.maxsize


async def read_json(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises TooLarge as soon as it is, DeadlineExceeded when it is too slow."""
    try:
        async with asyncio.timeout(timeout_s):
            return b"".join([chunk async for chunk in _bounded(request, max_bytes)])
    except TimeoutError as error:
        raise _too_slow(timeout_s) from error


async def read_images(
    request: Request, *, max_bytes: int, max_images: int, timeout_s: float
) -> list[bytes]:
    """The files of the multipart field 'images', in order. Errors as for read_json."""
    parser = _InMemory(
        request.headers,
        _bounded(request, max_bytes),
        max_files=max_images,
        max_fields=max_images,
    )
    try:
        async with asyncio.timeout(timeout_s):
            form = await parser.parse()
    except TimeoutError as error:
        raise _too_slow(timeout_s) from error
    except MultiPartException as error:
        kind = TooLarge if error.message.startswith("Too many") else BadInput
        raise kind(f"expected multipart files in field {FIELD!r}: {error.message}") from error
    try:
        files = [value for value in form.getlist(FIELD) if isinstance(value, UploadFile)]
        if len(files) != len(form.multi_items()):
            fields = sorted({key for key, _ in form.multi_items()})
            raise BadInput(
                f"expected only files in field {FIELD!r}, got fields {fields[:8]}; repeat "
                f"{FIELD!r} for each picture"
            )
        return [await file.read() for file in files]
    finally:
        await form.close()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What work returns. Cancels it and raises CallerGone when the caller hangs up before.

    Call it after the body was read: the next thing to receive can then only be the end.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CallerGone("the caller hung up before the answer was there")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        del task, gone  # what failed knows this frame: a cycle for the garbage collector


async def _bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"a request may hold {max_bytes} bytes, got more; split it")


def _too_slow(timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"the body did not arrive within {timeout_s:g} seconds")
