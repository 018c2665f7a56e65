"""Rows a second through the gRPC door beside bare ONNX Runtime's: large requests, and their bars.

    sudo apt-get install nghttp2-client          # h2load, the load generator
    .venv/bin/python tests/bench/bench_rows.py [--cache .bench]

One compute thread. The service is asked by h2load in a closed loop, raw tensors over gRPC; bare is
session.run in a process of its own on the same graph, cut to its score as the service cuts it. A
machine's speed drifts, so each window of the service lies between two of bare, its ratio is taken
to their mean, and the median over the rounds counts. The exit code is 1 when a bar is missed with
every number of callers. About five minutes; leave the machine alone meanwhile.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from serving.closed_loop import closed_loop
from serving.doors import check, oip_grpc
from serving.models import Model, digits_model, table_model
from serving.run import bare_session, refuse_errors
from serving.service import amiss_service

from amiss_serving.graphs import keep_outputs, parse_graph

ROOT = Path(__file__).parents[2]
CALLERS = (1, 4, 16)
WARM_UP_S = 0.3


@dataclass(frozen=True)
class Case:
    """A model, the rows of a request, and the least share of bare that the service must reach."""

    title: str
    model: Callable[[Path], Model]
    rows: int
    parallel_runs: int = 1
    bar: float | None = None


@dataclass(frozen=True)
class Speed:
    """What one window reached."""

    rows_per_s: float
    cpu_s_per_1000_rows: float


@dataclass(frozen=True)
class Turn:
    """A window of the service and those of bare before and after it."""

    ours: Speed
    bare: tuple[Speed, Speed]

    @property
    def ratio(self) -> float:
        return self.ours.rows_per_s / statistics.mean(each.rows_per_s for each in self.bare)


CASES = (
    Case("images of 28x28", digits_model, 32, bar=0.92),
    Case("images of 28x28", digits_model, 32, parallel_runs=2),
    Case("table of 121 columns", table_model, 256, bar=0.6),
    Case(
        "table of 121 columns, read-out reconstruction",
        partial(table_model, readout="reconstruction"),
        256,
        bar=0.6,
    ),
)


def main() -> int:
    options = _options()
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is missing; install it with: sudo apt install nghttp2-client")
    missed = 0
    for case in CASES:
        model = case.model(options.cache.resolve())
        others_s = _cpu_s_of_others()
        turns = measure(case, model, rounds=options.rounds, seconds=options.seconds)
        missed += not report(case, turns)
        others_s = _cpu_s_of_others() - others_s
        print(f"  other processes took {others_s:.0f} CPU seconds meanwhile", flush=True)
    return 1 if missed else 0


def measure(case: Case, model: Model, *, rounds: int, seconds: float) -> dict[int, list[Turn]]:
    """By the number of callers, one turn for each round."""
    turns: dict[int, list[Turn]] = {callers: [] for callers in CALLERS}
    with tempfile.TemporaryDirectory(prefix="amiss-bench-") as folder:
        scratch = Path(folder)
        graph = _score_alone(model, scratch)
        with _asked(case, model, scratch, seconds=seconds) as ask:
            for _ in range(rounds):
                before = _bare(graph, case.rows, seconds=seconds)
                for callers in CALLERS:
                    ours, after = ask(callers), _bare(graph, case.rows, seconds=seconds)
                    turns[callers].append(Turn(ours, (before, after)))
                    before = after
    return turns


def report(case: Case, turns: dict[int, list[Turn]]) -> bool:
    """Whether the bar is met; what was measured is printed."""
    runs = f"{case.parallel_runs} run{'s' if case.parallel_runs > 1 else ''} at a time"
    print(f"\n{case.title}, {case.rows} rows a request, {runs}")
    print(f"  {'':16} {'rows/s':>9} {'of bare':>8}  {'rounds':13} CPU s / 1,000 rows")
    bare = [speed for each in turns.values() for turn in each for speed in turn.bare]
    print(_line("bare session.run", bare))
    ratios = {}
    for callers, each in turns.items():
        of_rounds = sorted(turn.ratio for turn in each)
        ratios[callers] = statistics.median(of_rounds)
        words = f"{ratios[callers]:8.3f}  {of_rounds[0]:.3f}..{of_rounds[-1]:.3f}"
        name = f"gRPC, {callers} caller{'s' if callers > 1 else ''}"
        print(_line(name, [turn.ours for turn in each], words))
    if case.bar is None:
        return True
    best = max(ratios, key=lambda callers: ratios[callers])
    is_met = ratios[best] >= case.bar
    print(
        f"  bar {case.bar:g} of bare: {'met' if is_met else 'MISSED'}, {ratios[best]:.3f}",
        flush=True,
    )
    return is_met


def _line(name: str, speeds: list[Speed], words: str = "") -> str:
    rows_per_s = statistics.median(speed.rows_per_s for speed in speeds)
    cpu_s = statistics.median(speed.cpu_s_per_1000_rows for speed in speeds)
    return f"  {name:16} {rows_per_s:9,.0f} {words:23} {cpu_s:.4f}"


def _bare(graph: Path, rows: int, *, seconds: float) -> Speed:
    figures = bare_session(graph, rows, seconds=seconds)
    asked = len(figures["latency_ms"]) * rows
    return Speed(figures["requests_per_s"] * rows, figures["cpu_s"] / asked * 1000)


@contextmanager
def _asked(
    case: Case, model: Model, scratch: Path, *, seconds: float
) -> Iterator[Callable[[int], Speed]]:
    """A window of `amiss serve`, in a process of its own, for a number of callers."""
    options = ["--parallel-runs", case.parallel_runs]
    with amiss_service(model, scratch, options) as service:
        door = oip_grpc(urlsplit(service.oip_grpc.url).netloc, model.name)
        request = door.encode(model.inputs(case.rows))
        answer_bytes = check(door, model, rows=case.rows)

        def ask(callers: int) -> Speed:
            cpu_s = service.cpu_s()
            window = closed_loop(
                door, request, in_flight=callers, seconds=seconds, warm_up_s=WARM_UP_S
            )
            cpu_s = service.cpu_s() - cpu_s
            refuse_errors(window, door, answer_bytes=answer_bytes)
            rows = window.answered * case.rows
            return Speed(window.requests_per_s * case.rows, cpu_s / rows * 1000)

        yield ask


def _score_alone(model: Model, scratch: Path) -> Path:
    """The model's graph without its second output: ONNX Runtime computes both, asked for or not."""
    path = scratch / "score.onnx"
    graph = keep_outputs(parse_graph(model.onnx.read_bytes()), ("score",))
    path.write_bytes(graph.SerializeToString())
    return path


def _cpu_s_of_others() -> float:
    """So far, on the whole machine, without this process and the children that it has reaped."""
    all_of_it, ours = psutil.cpu_times(), psutil.Process().cpu_times()
    return float(all_of_it.user + all_of_it.nice + all_of_it.system - sum(ours[:4]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="where models are kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a window")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
