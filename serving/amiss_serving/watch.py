"""The models folder, looked at again and again while the service runs."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from amiss_serving.repository import DetectorRepository

logger = logging.getLogger(__name__)


@contextmanager
def polling(repository: DetectorRepository, poll_s: float) -> Iterator[None]:
    """While the block runs the repository follows what is on disk, when its mode says so."""
    if repository.mode != "poll":
        yield
        return
    task = asyncio.create_task(poll(repository, poll_s))
    try:
        yield
    finally:
        task.cancel()


async def poll(repository: DetectorRepository, poll_s: float) -> None:
    """Refresh every poll_s seconds, until cancelled, whatever goes wrong in between."""
    while True:
        await asyncio.sleep(poll_s)
        try:
            await repository.refresh()
        except Exception:  # a folder that cannot be listed now may be there at the next look
            logger.exception("the models folder could not be read; what was loaded serves on")
