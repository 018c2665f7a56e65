"""Seconds from starting `amiss serve` to the first 200 of /readyz: each start, and the median.

    .venv/bin/python tests/bench/bench_start.py [--models models] [--runtime onnx|torchscript]

Serves every bundle in the folder on the CPU; without one two of its own, images and a table. The
first start after a boot reads the libraries from disk and says so by its figure.
"""

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.models import digits_model, table_model

from amiss_export.bundle import list_versions

ROOT = Path(__file__).parents[2]
PAUSE_S = 0.005  # between two looks at /readyz: the error of a figure
PATIENCE_S = 60.0


def main() -> None:
    options = _options()
    with _models(options) as models:
        names = ", ".join(list_versions(models))
        if not names:
            raise SystemExit(f"no bundles in {models}; train some, or name another: --models")
        starts = [start_s(models, options.runtime) for _ in range(options.starts)]
    each = "  ".join(f"{taken:.2f}" for taken in starts)
    print(f"{names} with {options.runtime}: {each}  median {statistics.median(starts):.2f} s")


@contextmanager
def _models(options: argparse.Namespace) -> Iterator[Path]:
    """The folder asked for, or one with the two bundles that the other benchmarks serve."""
    if options.models:
        yield options.models
        return
    cache = options.cache.resolve()
    with tempfile.TemporaryDirectory() as folder:
        for model in (digits_model(cache), table_model(cache)):
            shutil.copytree(model.models / model.name, Path(folder, model.name))
        yield Path(folder)


def start_s(models: Path, runtime: str) -> float:
    """Seconds from the process's start until it says that it is ready; then it is stopped."""
    http, grpc, metrics = _free_ports(3)
    ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    serve = [sys.executable, "-m", "amiss_cli.main", "serve", "--models", str(models), *ports]
    started = time.perf_counter()
    with subprocess.Popen(
        [*serve, "--device=cpu", f"--runtime={runtime}", "--log-level=error"]
    ) as process:
        try:
            while not _is_ready(f"http://127.0.0.1:{http}/readyz"):
                if process.poll() is not None or time.perf_counter() - started > PATIENCE_S:
                    raise SystemExit("the service did not become ready; its log is above")
                time.sleep(PAUSE_S)
            return time.perf_counter() - started
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310  our own http address
            return answer.status == 200  # type: ignore[no-any-return]  # urllib has no type for it
    except OSError:  # nobody listens yet, or 503: bundles are being loaded
        return False


def _free_ports(n: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="default: two bundles of its own")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="where those are kept")
    parser.add_argument("--runtime", choices=("onnx", "torchscript"), default="onnx")
    parser.add_argument("--starts", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
