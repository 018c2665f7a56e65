"""Requests of mixed sizes from many callers at once, and the device memory they leave taken."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np

from amiss_client import AsyncClient

from .device_memory import MB
from .models import Inputs, Model
from .service import amiss_service

CALLERS = 32
MOST_ROWS = 256  # what one run takes; every second request has 16 rows or fewer
TIMEOUT_S = 60.0
Request = tuple[str, int, bool]  # detector, rows, whether the reconstruction is asked for


def requests_of(names: Sequence[str], *, seed: int = 0) -> Iterator[Request]:
    """Requests without end: detectors in turn, rows 1 to 256, a fourth with reconstruction."""
    random = np.random.default_rng(seed)
    while True:
        for name in names:
            rows = round(MOST_ROWS ** random.random())
            yield name, rows, bool(random.random() < 1 / 4)


async def ask_all(address: str, inputs: Mapping[str, Inputs], requests: Iterator[Request]) -> int:
    """The rows scored, when CALLERS at once have had all requests answered.

    address: of the gRPC door. inputs: by detector, at least MOST_ROWS each.
    """
    async with AsyncClient(address, timeout_s=TIMEOUT_S) as client:

        async def call() -> int:
            scored = 0
            for name, rows, reconstruct in requests:  # which all the callers share
                x = inputs[name][:rows]
                scores = await client.score_tensor(name, x, include_reconstruction=reconstruct)
                scored += len(scores)
            return scored

        return sum(await asyncio.gather(*(call() for _ in range(CALLERS))))


def memory_while_asked(
    models: Sequence[Model],
    read: Callable[[], int],
    *,
    options: Sequence[object],
    counts: Sequence[int],
) -> list[float]:
    """MB of a device that a service takes: when it is ready, then after each count of requests.

    models: lie in one folder, which is served as `options` say. read: bytes taken on the device by
    all processes, as in device_memory; what was taken before the service began is not counted.
    """
    before = read()
    inputs = {model.name: model.inputs(MOST_ROWS) for model in models}
    requests = requests_of(list(inputs))
    with (
        TemporaryDirectory(prefix="amiss-gpu-") as folder,
        amiss_service(models[0], Path(folder), options) as service,
    ):
        address = urlsplit(service.amiss_v1.url).netloc

        def taken_mb(count: int) -> float:
            asyncio.run(ask_all(address, inputs, islice(requests, count)))
            return (read() - before) / MB

        return [taken_mb(count) for count in (0, *counts)]
