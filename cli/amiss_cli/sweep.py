"""`amiss sweep`: the same training over classes, seeds and data sets, and what it adds up to."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from amiss_cli.usage import UsageParser
from amiss_export.errors import BadInput
from amiss_training.results import read_results
from amiss_training.results_summary import METRICS, Metric, summary_lines

if TYPE_CHECKING:
    from amiss_training.sweep import SweepConfig

LISTS = {"--seed": "--seeds", "--detector": "--detectors"}  # what is one value in `amiss train`


def main(argv: list[str]) -> int:
    """Trains what the results file does not hold yet and prints the summary; 1 if a job failed."""
    chosen, _ = _parser().parse_known_args(argv)
    if chosen.summary is not None:
        return _summarise(chosen.summary, chosen.metric)
    config, results, jobs = read_options(argv)
    failed = _sweep(config, results, jobs=jobs)
    if failed and not read_results(results):
        return 1  # nothing to sum up, and each job has said why
    _summarise(results, chosen.metric)
    return 1 if failed else 0


def read_options(argv: list[str]) -> tuple["SweepConfig", Path, int]:
    """The sweep that the options describe, the file to append to, and how many jobs at once.

    What is not the sweep's own belongs to each run: it is read as `amiss train` reads it.
    """
    from amiss_cli.train import parse
    from amiss_training.sweep import SweepConfig

    chosen, rest = _parser().parse_known_args(argv)
    for option in (part.partition("=")[0] for part in rest):
        if option in LISTS:
            raise BadInput(f"amiss sweep takes {LISTS[option]}, got {option}")
    data = chosen.data or []
    base = parse([*_name(rest), *rest, *(["--data", data[0]] if data else [])])
    config = SweepConfig(
        base=base,
        data=tuple(data) or (base.data,),
        over=chosen.over,
        classes=chosen.classes,
        seeds=chosen.seeds or (base.seed,),
        detectors=chosen.detectors or (base.detector,),
        readouts=chosen.readouts,
        control={"auto": None, "true": True, "false": False}[chosen.control],
    )
    return config, chosen.results or Path("docs/results") / f"{base.name}.csv", chosen.jobs


def _sweep(config: "SweepConfig", results: Path, *, jobs: int) -> int:
    """How many jobs failed, under a line of progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from amiss_training.sweep import in_processes, sweep

    columns = (TextColumn("sweep"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task("sweep")
        return sweep(
            config,
            results,
            run=in_processes(jobs),
            say=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
            tick=lambda ended, all_: progress.update(bar, completed=ended, total=all_),
        )


def _summarise(results: Path, metric: Metric) -> int:
    rows = read_results(results)
    if not rows:
        raise BadInput(f"{results}: expected rows of a sweep, got none")
    for line in summary_lines(rows, metric):
        print(line)
    return 0


def _name(rest: list[str]) -> list[str]:
    """A run has a name; a sweep needs none, and is called like its recipe."""
    is_named = any(option.partition("=")[0] in ("--name", "--recipe") for option in rest)
    return [] if is_named else ["--name", "sweep"]


def _parser() -> UsageParser:
    parser = UsageParser(
        prog="amiss sweep",
        description="Train over classes, seeds, detectors and data sets, several jobs side by "
        "side, beside simple peers on the same rows. Every figure is a row of a CSV file that "
        "only grows; rows it already holds under the same settings are not made again.",
        epilog="Every other option of `amiss train` is taken and holds for each run: see "
        "amiss train --help.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", action="append", help="table file, IDX/NPZ file or folder; may be repeated")
    add(
        "--over",
        choices=("normal_class", "anomaly_class", "none"),
        default="none",
        help="option whose value changes from job to job",
    )
    add("--classes", type=_words, default="all", help="its values, e.g. 0,1,2, or all")
    add("--seeds", type=_seeds, help="e.g. 0,1,2; default: the recipe's seed")
    add("--detectors", type=_words, help="e.g. vae,aae,alad,ensemble; default: the recipe's")
    add("--jobs", type=int, default=_cores(), help="processes side by side")
    add("--results", type=Path, help="file to append to; default: docs/results/RECIPE.csv")
    add(
        "--readouts",
        choices=("default", "all"),
        default="default",
        help="all: also score with each detector's other read-outs",
    )
    add(
        "--control",
        choices=("auto", "true", "false"),
        default="auto",
        help="also score the untrained network; auto: for images",
    )
    add("--metric", choices=METRICS, default="auroc", help="figure to sum up")
    add("--summary", type=Path, metavar="CSV", help="only sum up this file, training nothing")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _seeds(text: str) -> tuple[int, ...]:
    if not all(word.isdecimal() for word in _words(text)):
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 0,1,2, got {text!r}")
    return tuple(int(word) for word in _words(text))


def _cores() -> int:
    return len(os.sched_getaffinity(0))
