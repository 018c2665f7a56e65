"""The same service on each runtime: the same 1,000 rows, and how fast each answers.

    sudo apt-get install nghttp2-client          # h2load, the load generator
    .venv/bin/pip install -c constraints.txt -e '.[torchserve]'
    .venv/bin/python tests/bench/bench_runtimes.py [--cache .bench]

`amiss serve --runtime onnx|torchscript|torchserve`, one compute thread and one run at a time, raw
tensors over gRPC. All three are up at once and take turns; medians over the rounds. The exit code
is 1 when more than one verdict in 1,000 differs. About three minutes; leave the machine alone.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from serving.closed_loop import closed_loop
from serving.models import Model, digits_model
from serving.report import replace_part
from serving.run import machine, refuse_errors
from serving.service import Service, amiss_service

from amiss_client import Client, Scores

ROOT = Path(__file__).parents[2]
RUNTIMES = ("onnx", "torchscript", "torchserve")
CELLS = ((1, 1), (1, 64), (32, 16))  # rows of a request, callers
ROWS, MOST_APART = 1000, 1
Figures = dict[str, float]


def main() -> int:
    options = _options()
    model = digits_model(options.cache.resolve())
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amiss-bench-")))
        services = {name: _start(stack, model, scratch, runtime=name) for name in RUNTIMES}
        answers = {name: _score(service, model) for name, service in services.items()}
        found = measure(services, model, rounds=options.rounds, seconds=options.seconds)
    apart = {name: compare(answers["onnx"], answers[name]) for name in RUNTIMES}
    text = render(apart, found)
    print(text)
    if options.page:
        replace_part(options.page, "bench_runtimes.py", text)
        options.json.write_text(json.dumps({"apart": apart, "figures": found}, indent=1) + "\n")
    return int(any(figures["verdicts"] > MOST_APART for figures in apart.values()))


def compare(reference: Scores, other: Scores) -> Figures:
    """How many of the rows get another verdict, and the largest difference of two scores."""
    return {
        "verdicts": int((reference.is_anomaly != other.is_anomaly).sum()),
        "score": float(np.abs(reference.score - other.score).max()),
    }


def measure(
    services: dict[str, Service], model: Model, *, rounds: int, seconds: float
) -> dict[str, dict[str, Figures]]:
    """By the kind of request and the runtime, the medians of what the windows reached."""
    windows: dict[tuple[int, int], dict[str, list[Figures]]] = {
        cell: {name: [] for name in services} for cell in CELLS
    }
    for _, (cell, (name, service)) in itertools.product(
        range(rounds), itertools.product(CELLS, services.items())
    ):
        windows[cell][name].append(_window(service, model, *cell, seconds=seconds))
    return {
        f"{rows} row{'s' if rows > 1 else ''}, {callers} caller{'s' if callers > 1 else ''}": {
            name: {key: statistics.median(each[key] for each in of) for key in of[0]}
            for name, of in by_name.items()
        }
        for (rows, callers), by_name in windows.items()
    }


def render(apart: dict[str, Figures], found: dict[str, dict[str, Figures]]) -> str:
    """Markdown: agreement and speed of the runtimes."""
    about = machine()
    lines = [
        "## One service, three runtimes\n",
        f"`python tests/bench/bench_runtimes.py`, {about['date']}, commit {about['commit']}: "
        f"{about['cores']} cores of {about['cpu']}. The same service with `--runtime`, one compute "
        "thread, one run at a time, raw 28x28 images over gRPC; medians of windows in turn.\n",
        f"| {ROWS:,} rows beside ONNX Runtime | verdicts apart | largest difference of a score |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {of['verdicts']:.0f} | {of['score']:.2g} |" for name, of in apart.items()
    ]
    lines += ["", "| request | runtime | rows/s | p50 ms | p99 ms |", "|---|---|---|---|---|"]
    lines += [
        f"| {cell} | {name} | {of['rows_per_s']:,.0f} | {of['p50_ms']:.2f} | {of['p99_ms']:.2f} |"
        for cell, by_name in found.items()
        for name, of in by_name.items()
    ]
    return "\n".join(lines)


def _start(stack: ExitStack, model: Model, scratch: Path, *, runtime: str) -> Service:
    folder = scratch / runtime
    folder.mkdir()
    return stack.enter_context(amiss_service(model, folder, ["--runtime", runtime]))


def _score(service: Service, model: Model) -> Scores:
    with Client(urlsplit(service.oip_grpc.url).netloc) as client:
        return client.score_tensor(model.name, model.inputs(ROWS))


def _window(service: Service, model: Model, rows: int, callers: int, *, seconds: float) -> Figures:
    door = service.oip_grpc
    request = door.encode(model.inputs(rows))
    _, answer_bytes = door.ask(model.inputs(rows))
    window = closed_loop(door, request, in_flight=callers, seconds=seconds, warm_up_s=seconds / 3)
    refuse_errors(window, door, answer_bytes=answer_bytes)
    p50_ms, p99_ms = np.percentile(window.latency_ms, [50, 99])
    return {
        "rows_per_s": window.requests_per_s * rows,
        "p50_ms": float(p50_ms),
        "p99_ms": float(p99_ms),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="where models are kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a window")
    parser.add_argument("--json", type=Path, default=ROOT / "docs/results/runtimes.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/performance.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
