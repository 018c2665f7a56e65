"""Rows per second of one table detector: bare ONNX Runtime, the engine, gRPC; ratios in one run.

    .venv/bin/python tests/bench/bench_rows.py [--models models --detector breast-cancer]

Every line uses one compute thread and 256 rows a request; the client shares the machine's cores.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from amiss_client import Client
from amiss_export.bundle import TableInput, resolve_version
from amiss_serving.detector import LoadedDetector, load_detector
from amiss_serving.engine import Engine
from amiss_serving.metrics import Metrics
from amiss_serving.runtimes import RuntimeOptions
from amiss_serving.server import serving
from amiss_serving.settings import Settings

ROWS = 256
REPEATS = 3


def main() -> None:
    options = _options()
    version = resolve_version(options.models, options.detector)
    detector = load_detector(
        options.models, options.detector, version, options=RuntimeOptions(device="cpu")
    )
    rows = _rows(detector)
    bare = _rate(lambda: detector.runtime.run(rows, ("score",)), seconds=options.seconds)
    ours = asyncio.run(_engine_rate(detector, rows, seconds=options.seconds))
    wire = asyncio.run(_grpc_rate(options.models, detector, rows, seconds=options.seconds))
    for name, rate in (("bare ONNX Runtime", bare), ("engine", ours), ("gRPC, one caller", wire)):
        print(f"{name:20} {rate:12,.0f} rows/s  {rate / bare:5.2f} of bare")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--detector", default="breast-cancer")
    parser.add_argument("--seconds", type=float, default=3.0)
    return parser.parse_args()


def _rows(detector: LoadedDetector) -> NDArray[np.float32]:
    spec = detector.spec
    if not isinstance(spec, TableInput):
        raise SystemExit(f"{detector.name} takes images; name a table detector with --detector")
    codes = [0 if column.kind == "number" else 2 for column in spec.columns]
    noise = np.random.default_rng(0).normal(size=(ROWS, len(codes)))
    return np.where(codes, codes, noise).astype(np.float32)


def _rate(call: Callable[[], object], *, seconds: float) -> float:
    """Rows a second, median of REPEATS."""
    rates = []
    for _ in range(REPEATS):
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds / REPEATS:
            call()
            calls += 1
        rates.append(calls * ROWS / (time.perf_counter() - started))
    return statistics.median(rates)


async def _engine_rate(
    detector: LoadedDetector, rows: NDArray[np.float32], *, seconds: float
) -> float:
    engine = Engine(Metrics(CollectorRegistry()), max_batch_rows=ROWS)
    rates = []
    for _ in range(REPEATS):
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds / REPEATS:
            await engine.score(detector, rows, deadline_s=time.monotonic() + 10)
            calls += 1
        rates.append(calls * ROWS / (time.perf_counter() - started))
    await engine.close()
    return statistics.median(rates)


async def _grpc_rate(
    models: Path, detector: LoadedDetector, rows: NDArray[np.float32], *, seconds: float
) -> float:
    settings = Settings(
        models=str(models), http_port=0, grpc_port=0, metrics_port=0, log_level="error"
    )
    async with serving(settings) as at:
        with Client(at.grpc) as client:
            ask = lambda: client.score_tensor(detector.name, rows)  # noqa: E731
            return await asyncio.to_thread(_rate, ask, seconds=seconds)


if __name__ == "__main__":
    main()
