"""Versions swapped under load: 1,000 requests in flight over gRPC, none may fail or mix versions.

    .venv/bin/python tests/bench/bench_swap.py [--in-flight 1000 --swaps 50]

A service in a process of its own is told to promote version after version, with rollbacks in
between, while every caller checks that its answer holds the scores of the version it names. Exit
code 1 when a request failed or a version answered with another's scores.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' own bundles

from amiss.v1 import model_pb2 as pb
from amiss.v1.model_pb2_grpc import ModelServiceStub
from amiss.v1.scoring_pb2_grpc import ScoringServiceStub
from swap_models import Callers, write_version

VERSIONS = 4


def main() -> int:
    """Prints what was asked, answered and swapped."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        for version in range(1, VERSIONS + 1):
            write_version(models, version)
        (models / "table" / "labels.json").write_text('{"stable": 1}')
        with _service(models) as address:
            callers, swaps_s, seconds = asyncio.run(_load(address, options))
    answers = sum(callers.answers.values())
    print(f"requests answered       {answers:10,}  ({answers / seconds:,.0f} a second)")
    print(f"in flight               {options.in_flight:10,}")
    print(
        f"swaps                   {len(swaps_s):10,}  (median {statistics.median(swaps_s):.3f} s)"
    )
    print(f"answers by version      {dict(sorted(callers.answers.items()))}")
    print(f"failed or mixed         {len(callers.wrong):10,}")
    for line in sorted(set(callers.wrong))[:10]:
        print(f"  {line}")
    return 1 if callers.wrong or len(callers.answers) < VERSIONS else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--swaps", type=int, default=50)
    return parser.parse_args()


async def _load(address: str, options: argparse.Namespace) -> tuple[Callers, list[float], float]:
    """The callers after all swaps, seconds of each swap, and of the whole."""
    async with grpc.aio.insecure_channel(address) as channel:
        callers, models = Callers(ScoringServiceStub(channel)), ModelServiceStub(channel)
        started = time.perf_counter()
        tasks = [asyncio.create_task(callers.call(seed)) for seed in range(options.in_flight)]
        while sum(callers.answers.values()) < options.in_flight and not callers.wrong:
            await asyncio.sleep(0.05)
        swaps_s = [await _swap(models, n) for n in range(options.swaps)]
        callers.stopped = True
        await asyncio.gather(*tasks)
        return callers, swaps_s, time.perf_counter() - started


async def _swap(models: Any, n: int) -> float:
    """Seconds that one promotion took, or one rollback after every third."""
    started = time.perf_counter()
    if n % 4 == 3:
        await models.Rollback(pb.RollbackRequest(name="table"))
    else:
        version = str(1 + (n - n // 4) % VERSIONS)
        await models.Promote(pb.PromoteRequest(name="table", version=version, label="stable"))
    return time.perf_counter() - started


@contextmanager
def _service(models: Path) -> Iterator[str]:
    """The gRPC address of a service that can be promoted on; its log goes beside the versions."""
    command = [sys.executable, "-m", "amiss_cli.main", "serve", "--models", str(models)]
    command += ["--repository-mode", "explicit", "--device", "cpu"]
    command += [f"--{door}-port=0" for door in ("http", "grpc", "metrics")]
    log = models / "log"
    with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            yield _address(process, log)
        finally:
            process.terminate()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if '"message":"ready"' in line:
                return str(json.loads(line)["grpc"])
        time.sleep(0.05)
    raise SystemExit(f"the service ended with {process.returncode}: {log.read_text()}")


if __name__ == "__main__":
    sys.exit(main())
