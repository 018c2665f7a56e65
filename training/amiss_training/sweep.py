"""The same training over classes, seeds and data sets: what is still to do, and doing it."""

import dataclasses
import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

from amiss_export.errors import BadInput
from amiss_training.checks import check_range
from amiss_training.config import TrainConfig
from amiss_training.data import class_names
from amiss_training.detectors import CONFIGS
from amiss_training.learn import plans, settings
from amiss_training.processes import Ended, Made, side_by_side
from amiss_training.provenance import git_commit
from amiss_training.results import Kind, Over, Result, append_results, read_results
from amiss_training.sweep_job import Job, run_job

ALL = "all"
_ASIDE = ("name", "data", "models", "runs", "resume", "seed", "detector")  # decide no figure

Say = Callable[[str], None]
Event = Made[list[Result]] | Ended
Cell = tuple[str, str, str, int]  # settings, data, class, seed
Runner = Callable[[Sequence[Job]], Generator[Event]]


@dataclass(frozen=True)
class SweepConfig:
    """What is repeated, and over what.

    base: the run that is repeated; data, class, seed and detector are replaced in it. data: paths,
    None where the loader or the data set's name says it all. classes: values of the option `over`,
    ("all",) for every class there is. readouts: "all" also scores with a detector's other
    read-outs. control: whether to score the untrained network; None does so for images.
    """

    base: TrainConfig
    data: tuple[str | None, ...]
    over: Over = "none"
    classes: tuple[str, ...] = (ALL,)
    seeds: tuple[int, ...] = (0,)
    detectors: tuple[str, ...] = ("vae",)
    readouts: Literal["default", "all"] = "default"
    control: bool | None = None


def in_processes(at_once: int) -> Runner:
    """Runs up to `at_once` jobs side by side, each in a process of its own."""
    check_range("jobs", at_once, 1)
    return partial(side_by_side, run_job, at_once=at_once)


def sweep(
    config: SweepConfig,
    results: Path,
    *,
    run: Runner,
    say: Say,
    tick: Callable[[int, int], None],
) -> int:
    """How many jobs failed; puts each method's rows into the file as soon as they are there.

    Rows that the file already holds under the same settings are not made again. say: gets a line
    for each job that ends. tick(ended, all): called when a job ends, and once before the first.
    Raises BadInput for settings that cannot work, before anything runs.
    """
    known = read_results(results)
    keys = {result.key for result in known}
    with tempfile.TemporaryDirectory(prefix="amiss-sweep-") as runs:
        base = dataclasses.replace(config.base, runs=runs)
        jobs = plan(dataclasses.replace(config, base=base), known)
        reasons: list[str | None] = []
        tick(0, len(jobs))
        with closing(run(jobs)) as events:  # before the folder goes, so do those who write there
            for event in events:
                if isinstance(event, Made):
                    append_results(results, [r for r in event.product if r.key not in keys])
                    continue
                reasons.append(event.reason)
                say(f"{jobs[event.task].cell}: {event.reason or 'done'}")
                tick(len(reasons), len(jobs))
    return sum(reason is not None for reason in reasons)


def plan(config: SweepConfig, known: Sequence[Result]) -> list[Job]:
    """The jobs that still have something to do, seeds outermost: a look half-way sees all classes.

    Raises BadInput for settings that cannot work.
    """
    _check(config)
    names = [_data_name(path, config.base) for path in config.data]
    if len(set(names)) < len(names):
        raise BadInput(f"every --data needs a file name of its own, got {', '.join(names)}")
    kinds: dict[Cell, set[Kind]] = defaultdict(set)
    for row in known:
        kinds[row.config_hash, row.data, row.class_, row.seed].add(row.kind)
    base = _quiet(config.base)
    hashes = {m: config_hash(base, m, over=config.over) for m in ("peers", *config.detectors)}
    commit = (git_commit() or "")[:12]
    cells = [
        (path, name, class_)
        for path, name in zip(config.data, names, strict=True)
        for class_ in _classes(config, path)
    ]
    jobs = [
        Job(
            config=_with_class(
                dataclasses.replace(base, data=path, seed=seed), config.over, class_
            ),
            data=name,
            over=config.over,
            class_=class_,
            detectors=config.detectors,
            with_peers=True,
            all_readouts=config.readouts == "all",
            control=config.control,
            hashes=hashes,
            commit=commit,
        )
        for seed, (path, name, class_) in product(config.seeds, cells)
    ]
    left = [_without(job, kinds) for job in jobs]
    return [job for job in left if job.detectors or job.with_peers]


def config_hash(config: TrainConfig, method: str, *, over: Over) -> str:
    """12 hex digits of the settings that decide a detector's figures, or those of the "peers".

    Another detector's options do not count, nor do data, class and seed, which rows name.
    """
    values = {name: value for name, value in settings(config).items() if name not in _ASIDE}
    if over != "none":
        values["options"] |= {"normal_class": None, "anomaly_class": None}
    own = {method, *(config.ensemble.members if method == "ensemble" else ())}
    for group in set(CONFIGS) - own:
        del values[group]
    if method == "peers":
        values = {"recipe": config.recipe, "options": values["options"]}
    text = json.dumps([method, over, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check(config: SweepConfig) -> None:
    for detector in config.detectors:
        plans(dataclasses.replace(config.base, detector=detector))
    for name, values in (("seeds", config.seeds), ("classes", config.classes)):
        if not values or len(set(values)) < len(values):
            raise BadInput(f"{name} must name at least one, each once, got {list(values)}")
    for seed in config.seeds:
        check_range("seeds", seed, 0, 2**32 - 1)
    if config.over == "none" and config.classes != (ALL,):
        raise BadInput("--classes needs --over normal_class or --over anomaly_class")
    devices = config.base.trainer.get("devices", 1)
    if devices not in (1, "1") and not (isinstance(devices, list) and len(devices) == 1):
        raise BadInput(
            f"a sweep's jobs run side by side on one device each, got trainer.devices {devices!r}; "
            "leave it out, and choose the device with CUDA_VISIBLE_DEVICES"
        )


def _classes(config: SweepConfig, path: str | None) -> tuple[str, ...]:
    if config.over == "none":
        return ("",)
    if config.classes != (ALL,):
        return config.classes
    there = class_names(Path(path) if path else None, config.base.options)
    return tuple(sorted(there, key=lambda c: (not c.isdecimal(), len(c), c)))


def _with_class(config: TrainConfig, over: Over, class_: str) -> TrainConfig:
    if over == "none":
        return config
    chosen: dict[str, Any] = {"normal_class": None, "anomaly_class": None, over: class_}
    return dataclasses.replace(config, options=dataclasses.replace(config.options, **chosen))


def _quiet(config: TrainConfig) -> TrainConfig:
    """The run without progress bar, logs and checkpoints of before: many runs share one screen."""
    return dataclasses.replace(
        config,
        trainer=config.trainer | {"enable_progress_bar": False},
        fit=dataclasses.replace(config.fit, log="none"),
        resume=False,
    )


def _without(job: Job, known: Mapping[Cell, set[Kind]]) -> Job:
    """The job less what the file holds. A detector's rows are written together."""
    kinds = {
        name: known.get((settings_hash, job.data, job.class_, job.config.seed), set())
        for name, settings_hash in job.hashes.items()
    }
    return dataclasses.replace(
        job,
        detectors=tuple(name for name in job.detectors if not _wanted(name, job) <= kinds[name]),
        with_peers=not kinds["peers"],
    )


def _wanted(detector: str, job: Job) -> set[Kind]:
    """The kinds of rows that the detector's part of the job writes for sure."""
    wanted: set[Kind] = {"ours"}
    wanted |= {"control"} if job.control else set()
    wanted |= {"readout"} if job.all_readouts and job.is_single(detector) else set()
    return wanted


def _data_name(path: str | None, config: TrainConfig) -> str:
    """What rows call the data: the file's stem, or the name of a data set or a starter."""
    options = config.options
    return Path(path).name.split(".")[0] if path else options.data_set or options.loader
