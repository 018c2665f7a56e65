"""`amiss bench`: which settings of `amiss serve` suit a bundle on this machine."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amiss_cli.usage import UsageParser
from amiss_export.errors import BadInput
from amiss_serving.settings import RUNTIMES

if TYPE_CHECKING:
    from amiss_serving.tuning import Measured

LATENCY_FACTOR = 10.0


def main(argv: list[str]) -> int:
    """Prints every setting's figures, marks the best and writes it where --output says."""
    chosen = _parser().parse_args(argv)
    _check(chosen)
    from amiss_serving.tuning import best_of

    measured = _measured(chosen)
    best = best_of(measured, latency_factor=chosen.latency_factor)
    _print_table(chosen, measured, best)
    if chosen.output is None:
        print(as_yaml(chosen, best), end="")
        return 0
    _write_whole(chosen.output, as_yaml(chosen, best))
    print(f"written to {chosen.output}; use it with: amiss serve --config {chosen.output}")
    return 0


def as_yaml(chosen: argparse.Namespace, best: "Measured") -> str:
    """The best setting as options of `amiss serve`, with what they were chosen for."""
    setting = best.setting
    return (
        f"# amiss bench {chosen.reference}: {best.rows_per_s:,.0f} rows/s, "
        f"p99 {best.p99_ms:.3g} ms a batch\n"
        f"runtime: {chosen.runtime}\n"
        f"device: {chosen.device}\n"
        f"threads: {setting.threads}\n"
        f"parallel_runs: {setting.parallel_runs}\n"
        f"max_batch_rows: {setting.max_batch_rows}\n"
    )


def _measured(chosen: argparse.Namespace) -> "list[Measured]":
    from rich.console import Console
    from rich.progress import track

    from amiss_export.bundle import resolve_version, split_reference
    from amiss_serving.runtimes import RuntimeOptions, choose_device
    from amiss_serving.tuning import settings_for, sweep, usable_cores

    name, wanted = split_reference(chosen.reference)
    version = resolve_version(chosen.models, name, wanted)
    chosen.device = choose_device(chosen.device, chosen.runtime).name
    settings = settings_for(usable_cores(), device=chosen.device)
    measuring = sweep(
        chosen.models,
        name,
        version,
        options=RuntimeOptions(kind=chosen.runtime, device=chosen.device),
        settings=settings,
        seconds=chosen.seconds,
    )
    console = Console(stderr=True)
    console.print(f"{len(settings)} settings of {name}@{version}, {chosen.seconds:g} s each")
    return list(track(measuring, "measuring", total=len(settings), console=console, transient=True))


def _print_table(
    chosen: argparse.Namespace, measured: "Sequence[Measured]", best: "Measured"
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{chosen.reference}, {chosen.runtime} on {chosen.device}", box=None)
    for column in ("threads", "runs", "batch rows", "rows/s", "p50 ms", "p99 ms", "CPU s/1k", ""):
        table.add_column(column, justify="right")
    for m in measured:
        table.add_row(
            str(m.setting.threads),
            str(m.setting.parallel_runs),
            str(m.setting.max_batch_rows),
            f"{m.rows_per_s:,.0f}",
            f"{m.p50_ms:.3g}",
            f"{m.p99_ms:.3g}",
            f"{m.cpu_s_per_1000_rows:.3g}",
            "best" if m is best else "",
            style="bold" if m is best else None,
        )
    Console().print(table)


def _write_whole(path: Path, text: str) -> None:
    """The text at path, all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        whole = Path(folder) / path.name
        whole.write_text(text)
        whole.replace(path)


def _check(chosen: argparse.Namespace) -> None:
    if not chosen.seconds > 0:
        raise BadInput(f"--seconds must be > 0, got {chosen.seconds}")
    if not chosen.latency_factor >= 1:
        raise BadInput(f"--latency-factor must be >= 1, got {chosen.latency_factor}")
    output: Path | None = chosen.output
    if output is None:
        return
    if output.exists():
        raise BadInput(f"--output {output} exists and may hold more settings; name another file")
    if not output.parent.is_dir():
        raise BadInput(f"--output {output}: there is no folder {output.parent}")


def _parser() -> UsageParser:
    parser = UsageParser(
        prog="amiss bench",
        description="Measure threads x parallel runs x batch rows of a bundle through the real "
        "engine, in this process: two callers for each parallel run, each asking for one full "
        "batch after the other. The best setting has the most rows a second among those whose p99 "
        "is within --latency-factor of the least p99 of all. Keep the machine quiet meanwhile.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("reference", metavar="NAME[@VERSION|@LABEL]", help="the bundle")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of bundles")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds for each setting")
    parser.add_argument(
        "--output", type=Path, metavar="serve.yaml", help="new file for `amiss serve --config`"
    )
    parser.add_argument("--runtime", choices=RUNTIMES, default="onnx", help="what runs the model")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:0")
    parser.add_argument(
        "--latency-factor",
        type=float,
        default=LATENCY_FACTOR,
        help="p99 that more rows a second may cost, in units of the least p99",
    )
    return parser
