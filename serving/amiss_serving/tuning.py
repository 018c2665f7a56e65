"""Which threads, parallel runs and batch rows suit a bundle on this machine: for `amiss bench`.

Each setting is measured through the real engine, in this process, in a closed loop: for every run
that may go on at a time two callers, each asking for one full batch after the other, so that the
next batch always waits when one is done.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.decode import FIRST_CATEGORY
from amiss_serving.detector import LoadedDetector, load_detector
from amiss_serving.devices import CPU
from amiss_serving.engine import Engine
from amiss_serving.metrics import Metrics
from amiss_serving.runtimes import RuntimeOptions

BATCH_ROWS = (1, 4, 16, 64, 256)
CALLERS_PER_RUN = 2
PATIENCE_S = 600.0  # for one batch; a closed loop has no deadline of its own
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Setting:
    """One point of the sweep, in the words of `amiss serve`."""

    threads: int
    parallel_runs: int
    max_batch_rows: int


@dataclass(frozen=True)
class Measured:
    """What a setting reached. Milliseconds from asking for a batch to its verdicts."""

    setting: Setting
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s_per_1000_rows: float


def settings_for(cores: int, *, device: str = CPU) -> list[Setting]:
    """Every setting worth trying: powers of two whose threads together fit the cores.

    On a CUDA device one thread, which hands out the work, is enough for a run.
    """
    counts = [2**i for i in range(cores.bit_length())]
    return [
        Setting(threads, runs, rows)
        for threads in (counts if device == CPU else [1])
        for runs in counts
        if threads * runs <= cores
        for rows in BATCH_ROWS
    ]


def sweep(
    models: Path,
    name: str,
    version: int,
    *,
    options: RuntimeOptions,
    settings: Sequence[Setting],
    seconds: float,
) -> Iterator[Measured]:
    """Each setting's figures, as soon as they are there. seconds: for each one.

    Raises what loading the bundle or scoring its rows raises.
    """
    for threads, of_threads in groupby(settings, key=lambda setting: setting.threads):
        group = list(of_threads)
        workers = max(setting.parallel_runs for setting in group)  # of TorchServe
        own = replace(options, threads=threads, workers=workers)
        detector = load_detector(models, name, version, options=own)
        for setting in group:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                measured = runner.run(measure(detector, setting, seconds=seconds))
            yield measured


def best_of(measured: Sequence[Measured], *, latency_factor: float) -> Measured:
    """The most rows a second whose p99 is within latency_factor of the least p99 of all."""
    limit_ms = latency_factor * min(m.p99_ms for m in measured)
    return max((m for m in measured if m.p99_ms <= limit_ms), key=lambda m: m.rows_per_s)


async def measure(detector: LoadedDetector, setting: Setting, *, seconds: float) -> Measured:
    """The figures of one setting, after a round that is not counted."""
    callers = CALLERS_PER_RUN * setting.parallel_runs
    rows = setting.max_batch_rows
    engine = Engine(
        Metrics(CollectorRegistry()),
        max_batch_rows=rows,
        max_queue_rows=callers * rows,
        max_request_rows=rows,
        parallel_runs=setting.parallel_runs,
    )
    x = example_rows(detector.spec, rows)

    async def ask() -> float:
        started_s = time.monotonic()
        await engine.score(detector, x, deadline_s=started_s + PATIENCE_S)
        return time.monotonic() - started_s

    async def ask_until(end_s: float) -> list[float]:
        taken_s = [await ask()]
        while time.monotonic() < end_s:
            taken_s.append(await ask())
        return taken_s

    try:
        await asyncio.gather(*(ask() for _ in range(callers)))
        started_s, cpu_started_s = time.monotonic(), time.process_time()
        taken = await asyncio.gather(*(ask_until(started_s + seconds) for _ in range(callers)))
        elapsed_s = time.monotonic() - started_s
        cpu_s = time.process_time() - cpu_started_s
    finally:
        await engine.close()
    taken_ms = 1000 * np.concatenate(taken)
    total = len(taken_ms) * rows
    return Measured(
        setting,
        rows_per_s=total / elapsed_s,
        p50_ms=float(np.quantile(taken_ms, 0.5)),
        p99_ms=float(np.quantile(taken_ms, 0.99)),
        cpu_s_per_1000_rows=1000 * cpu_s / total,
    )


def example_rows(spec: ImageInput | TableInput, n: int) -> NDArray[Any]:
    """n rows of noise that the detector takes: uint8 (n, c, h, w) or float32 (n, d)."""
    rng = np.random.default_rng(0)
    if isinstance(spec, ImageInput):
        shape = (n, spec.channels, spec.height, spec.width)
        return rng.integers(0, 256, shape, dtype=np.uint8)
    is_number = [column.kind == "number" for column in spec.columns]
    noise = rng.normal(size=(n, len(is_number)))
    return np.where(is_number, noise, FIRST_CATEGORY).astype(np.float32)


def usable_cores(quota: Path = CGROUP_QUOTA) -> int:
    """Cores this process may keep busy: those it may run on, within its container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        most, period = quota.read_text().split()
    except (OSError, ValueError):  # no cgroup v2 here
        return cores
    return cores if most == "max" else max(1, min(cores, int(most) // int(period)))
