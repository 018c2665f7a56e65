"""What `make gpu-check` judges, line by line: a device's parity, speed and memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from amiss_export.bundle import Manifest, resolve_version
from amiss_export.decision import Verdicts
from amiss_serving.detector import LoadedDetector, joined, load_detector
from amiss_serving.devices import CPU
from amiss_serving.runtimes import RuntimeKind, RuntimeOptions
from amiss_serving.tuning import Measured, Setting, sweep, usable_cores

from .models import NAME, Inputs, Model

KINDS: tuple[RuntimeKind, ...] = ("onnx", "torchscript")
BATCH_ROWS = (1, 16, 64, 256)
RUNS = 4  # at a time on the device, one thread each; on the CPU one run for each core
PARITY_ROWS = 1_000
LEAST_RATIO = 1.0  # of the device's rows/s to all cores', for convolutions in the largest batch
MOST_GROWTH_MB = 64.0  # a few late plans or segments; a leak of 7 KiB a request in 10,000 is more


@dataclass(frozen=True)
class Line:
    """One line of the report. held: None where there is no bar."""

    name: str
    figure: str
    bar: str = ""
    held: bool | None = None

    def __str__(self) -> str:
        verdict = "" if self.held is None else f"  ({self.bar}: {'pass' if self.held else 'FAIL'})"
        return f"  {self.name:34} {self.figure}{verdict}"


def parity(model: Model, *, device: str) -> Iterator[Line]:
    """What each runtime makes of rows on the device, beside ONNX Runtime on the CPU."""
    x = model.inputs(PARITY_ROWS)
    cpu = _detector(model, RuntimeOptions(device=CPU))
    expected = cpu.score(x).verdicts
    for kind in KINDS:
        detector = _detector(model, RuntimeOptions(kind=kind, device=device))
        got = joined([detector.score(part) for part in in_mixed_sizes(x)]).verdicts
        yield parity_line(f"{model.name}, {kind}", got, expected, of=cpu.bundle.manifest)


def parity_line(name: str, got: Verdicts, expected: Verdicts, *, of: Manifest) -> Line:
    """The largest difference of a score in units of the calibration scale, and how many verdicts
    differ, of which one in a thousand may. of: what says the scale and its tolerance."""
    difference = float(np.abs(got.score - expected.score).max()) / of.decision.scale
    n = len(got.score)
    differ = int((got.is_anomaly != expected.is_anomaly).sum())
    figure = f"{difference:.1e} of the scale, {differ} of {n:,} verdicts differ"
    held = difference <= of.parity.tolerance and differ * 1000 <= n
    return Line(name, figure, f"<= {of.parity.tolerance:g}, at most 1 in 1,000", held)


def in_mixed_sizes(x: Inputs) -> list[Inputs]:
    """The rows of x in batches of 1, 2, 4, ..., 256 rows and again, the last as it comes out."""
    sizes = [2**i for i in range(9)] * (1 + len(x) // 511)
    return [part for part in np.split(x, np.cumsum(sizes)) if len(part)]


def speed(model: Model, *, device: str, seconds: float) -> Iterator[Line]:
    """Rows a second on the device beside the CPU's, through the engine, by rows in a batch."""
    ours, cpu = (_measured(model, each, seconds=seconds) for each in (device, CPU))
    for there, here in zip(ours, cpu, strict=True):
        yield speed_line(model.name, there, here)


def speed_line(name: str, there: Measured, here: Measured) -> Line:
    """Both figures and their ratio; with a bar for convolutions in the largest batch."""
    rows, ratio = there.setting.max_batch_rows, there.rows_per_s / here.rows_per_s
    figure = (
        f"{there.rows_per_s:10,.0f} rows/s, CPU {here.rows_per_s:9,.0f}, {ratio:6.2f} x, "
        f"p99 {there.p99_ms:.3g} and {here.p99_ms:.3g} ms"
    )
    title = f"{name}, batches of {rows}"
    if name != NAME or rows != BATCH_ROWS[-1]:
        return Line(title, figure)
    return Line(title, figure, f">= {LEAST_RATIO:g} x", ratio >= LEAST_RATIO)


def memory_lines(counts: Sequence[int], taken_mb: Sequence[float]) -> Iterator[Line]:
    """MB taken when the service was ready and after each count of requests, the first of which
    warms up; then the growth since."""
    yield Line("ready", f"{taken_mb[0]:8.0f} MB")
    for requests, each in zip(np.cumsum(counts), taken_mb[1:], strict=True):
        yield Line(f"after {requests:,} requests", f"{each:8.0f} MB")
    growth = max(taken_mb[1:]) - taken_mb[1]
    bar = f"<= {MOST_GROWTH_MB:g} MB"
    yield Line("growth after the first count", f"{growth:8.0f} MB", bar, growth <= MOST_GROWTH_MB)


def _measured(model: Model, device: str, *, seconds: float) -> list[Measured]:
    runs = usable_cores() if device == CPU else min(RUNS, usable_cores())
    return list(
        sweep(
            model.models,
            model.name,
            resolve_version(model.models, model.name),
            options=RuntimeOptions(device=device, warm_up_rows=BATCH_ROWS),
            settings=[Setting(threads=1, parallel_runs=runs, max_batch_rows=n) for n in BATCH_ROWS],
            seconds=seconds,
        )
    )


def _detector(model: Model, options: RuntimeOptions) -> LoadedDetector:
    version = resolve_version(model.models, model.name)
    return load_detector(model.models, model.name, version, options=options)
