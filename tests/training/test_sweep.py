"""A sweep does what is still to do, keeps what it has, and reports what failed."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amiss_export.errors import BadInput
from amiss_training.config import TrainConfig
from amiss_training.data import DataOptions
from amiss_training.fit import FitConfig
from amiss_training.processes import Ended, Made
from amiss_training.results import Result, read_results
from amiss_training.sweep import Event, SweepConfig, config_hash, in_processes, plan, sweep
from amiss_training.sweep_job import Job
from result_rows import result


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three classes, 0, 2 and 10, around different means; 40 rows each."""
    rng = np.random.default_rng(0)
    rows = [
        f"{x:.4f},{y:.4f},{label}"
        for label in (10, 0, 2)
        for x, y in rng.normal(label, 1.0, (40, 2)).tolist()
    ]
    path = tmp_path / "three.csv"
    path.write_text("\n".join(["x,y,label", *rows]) + "\n")
    return path


def base(**changed: Any) -> TrainConfig:
    """A run of a step or two."""
    fields: dict[str, Any] = {
        "name": "sweep",
        "recipe": "table",
        "alarm_rate": 0.3,
        "options": DataOptions(label_column="label"),
        "fit": FitConfig(batch_size=32, min_steps_per_epoch=2, ema_decay=0.5),
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    return TrainConfig(**(fields | changed))


def config(table: Path, **changed: Any) -> SweepConfig:
    """Every class of the table as the normal one, two seeds."""
    fields: dict[str, Any] = {
        "base": base(),
        "data": (str(table),),
        "over": "normal_class",
        "seeds": (0, 1),
        "detectors": ("vae",),
    }
    return SweepConfig(**(fields | changed))


def rows_of(job: Job) -> Iterator[list[Result]]:
    """Made-up rows of a job, as run_job would yield them."""
    common: dict[str, Any] = {
        "data": job.data,
        "over": job.over,
        "class_": job.class_,
        "seed": job.config.seed,
    }
    if job.with_peers:
        yield [result("knn", config_hash=job.hashes["peers"], **common)]
    for name in job.detectors:
        rows = [result(name, config_hash=job.hashes[name], **common)]
        kinds = ["control"] * (job.control is True) + ["readout"] * job.all_readouts
        yield rows + [dataclasses.replace(rows[0], method=f"{name}/{k}", kind=k) for k in kinds]


def here(jobs: Sequence[Job], *, failing: str = "") -> Generator[Event]:
    """Runs the jobs in this process; those of the class `failing` fail after their first rows."""
    for number, job in enumerate(jobs):
        for rows in rows_of(job):
            yield Made(number, rows)
            if job.class_ == failing:
                break
        yield Ended(number, "it broke" if job.class_ == failing else None)


def swept(config: SweepConfig, path: Path, **options: Any) -> tuple[int, list[str]]:
    """Failed jobs and what was said."""
    lines: list[str] = []
    failed = sweep(
        config,
        path,
        run=lambda jobs: here(jobs, **options),
        say=lines.append,
        tick=lambda *_: None,
    )
    return failed, lines


def test_all_means_every_class_in_numeric_order_for_every_seed(table: Path) -> None:
    """Jobs are seeds times classes, 2 before 10, each with its class as the normal one."""
    jobs = plan(config(table), [])
    cells = [(job.config.seed, job.class_) for job in jobs]
    assert cells == [(seed, c) for seed in (0, 1) for c in ("0", "2", "10")]
    assert [job.config.options.normal_class for job in jobs[:3]] == ["0", "2", "10"]


def test_all_classes_need_no_class_called_0(tmp_path: Path) -> None:
    """Classes that are words, in a file where the usual normal class 0 is absent, are all swept."""
    path = tmp_path / "words.csv"
    path.write_text("x,label\n" + "".join(f"{i},{'abc'[i % 3]}\n" for i in range(30)))
    for over in ("normal_class", "anomaly_class"):
        jobs = plan(config(path, over=over, seeds=(0,)), [])
        assert [getattr(job.config.options, over) for job in jobs] == ["a", "b", "c"]


def test_a_swept_class_replaces_the_recipes(table: Path) -> None:
    """Over anomaly_class, the recipe's normal class does not stay beside it."""
    options = DataOptions(label_column="label", normal_class="0")
    (job,) = plan(
        config(table, base=base(options=options), over="anomaly_class", classes=("2",), seeds=(0,)),
        [],
    )
    assert (job.config.options.normal_class, job.config.options.anomaly_class) == (None, "2")


def test_each_table_is_a_row_group_named_by_its_stem(table: Path, tmp_path: Path) -> None:
    """Two data files give two groups; two files of one name are refused."""
    other = tmp_path / "other.csv"
    other.write_bytes(table.read_bytes())
    both = config(table, data=(str(table), str(other)), over="none", seeds=(0,))
    assert [job.data for job in plan(both, [])] == ["three", "other"]
    with pytest.raises(BadInput, match="a file name of its own"):
        plan(dataclasses.replace(both, data=(str(table), str(table))), [])


def test_rows_that_are_there_are_not_made_again(table: Path, tmp_path: Path) -> None:
    """After a sweep nothing is left to do; another seed or detector adds only itself."""
    path = tmp_path / "r.csv"
    assert swept(config(table), path)[0] == 0
    known = read_results(path)
    assert plan(config(table), known) == []
    assert {job.config.seed for job in plan(config(table, seeds=(0, 1, 2)), known)} == {2}
    more = plan(config(table, detectors=("vae", "ensemble")), known)
    assert {(job.detectors, job.with_peers) for job in more} == {(("ensemble",), False)}


def test_controls_and_readouts_asked_for_later_are_added(table: Path, tmp_path: Path) -> None:
    """Asking for more rows of a known model makes it again and keeps its known row single."""
    path = tmp_path / "r.csv"
    swept(config(table), path)
    before = path.read_bytes()
    assert swept(config(table, control=True, readouts="all"), path)[0] == 0
    keys = [row.key for row in read_results(path)]
    assert path.read_bytes().startswith(before)
    assert len(set(keys)) == len(keys) == 6 * 4
    assert plan(config(table, control=True, readouts="all"), read_results(path)) == []


def test_an_ensemble_that_is_there_is_not_made_again_for_readouts(
    table: Path, tmp_path: Path
) -> None:
    """Several members have no read-outs of their own, so with all of them asked none is missing."""
    path, whole = tmp_path / "r.csv", config(table, detectors=("ensemble",))
    swept(whole, path)
    assert plan(dataclasses.replace(whole, readouts="all"), read_results(path)) == []


def test_changed_settings_run_again_beside_the_old(table: Path, tmp_path: Path) -> None:
    """Another batch size makes our rows again under another hash, the peers' stay as they are."""
    path = tmp_path / "r.csv"
    swept(config(table), path)
    changed = config(table, base=base(fit=FitConfig(batch_size=16)))
    jobs = plan(changed, read_results(path))
    assert {(job.detectors, job.with_peers) for job in jobs} == {(("vae",), False)}
    swept(changed, path)
    assert len({row.config_hash for row in read_results(path) if row.method == "vae"}) == 2


def test_the_hash_is_of_what_decides_the_figures() -> None:
    """Paths, seed, class and other detectors' options do not count; own options and shares do."""

    def hashed(config: TrainConfig, method: str = "vae") -> str:
        return config_hash(config, method, over="normal_class")

    first = base()
    vae = dataclasses.replace(first.vae, kl_weight=0.5)
    ensemble = dataclasses.replace(first.ensemble, seeds=3)
    shares = dataclasses.replace(first.options, train_share=0.5)
    for aside in (
        {"seed": 1, "data": "x", "runs": "y", "models": "z", "name": "n", "ensemble": ensemble},
        {"options": dataclasses.replace(first.options, normal_class="2")},
    ):
        assert hashed(base(**aside)) == hashed(first)
    for decides in ({"vae": vae}, {"options": shares}, {"alarm_rate": 0.1}):
        assert hashed(base(**decides)) != hashed(first)
    assert hashed(base(vae=vae), "ensemble") != hashed(first, "ensemble")
    assert hashed(base(vae=vae), "peers") == hashed(first, "peers")
    assert hashed(base(options=shares), "peers") != hashed(first, "peers")


def test_a_failing_job_is_reported_and_loses_no_other(table: Path, tmp_path: Path) -> None:
    """One class fails: its reason is said, the others' rows are there, and it is left to do."""
    path = tmp_path / "r.csv"
    failed, lines = swept(config(table), path, failing="2")
    assert failed == 2
    assert "three, class 2, seed 0: it broke" in lines
    known = read_results(path)
    assert {row.class_ for row in known if row.method == "vae"} == {"0", "10"}
    assert {(j.class_, j.detectors, j.with_peers) for j in plan(config(table), known)} == {
        ("2", ("vae",), False)
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"detectors": ("vea",)}, "no detector 'vea'"),
        ({"seeds": (0, 0)}, "each once"),
        ({"seeds": (-1,)}, "seeds"),
        ({"classes": ()}, "at least one"),
        ({"over": "none", "classes": ("0",)}, "needs --over"),
        ({"base": base(trainer={"devices": 2})}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    table: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    """A wrong setting raises BadInput with its name, and no file is written."""
    with pytest.raises(BadInput, match=message):
        swept(config(table, **changed), tmp_path / "r.csv")
    assert not (tmp_path / "r.csv").exists()


def test_no_job_at_once_is_refused() -> None:
    """--jobs 0 would wait for ever."""
    with pytest.raises(BadInput, match="jobs"):
        in_processes(0)


@pytest.mark.slow
def test_a_sweep_killed_half_way_goes_on_where_it_was(table: Path, tmp_path: Path) -> None:
    """Killed after the first rows and started again with two jobs, each row is there once."""
    path = tmp_path / "r.csv"
    argv = [
        *(sys.executable, "-m", "amiss_cli.main", "sweep", "--data", str(table)),
        *("--label-column", "label", "--alarm-rate", "0.3", "--over", "normal_class"),
        *("--classes", "0,2", "--results", str(path)),
        *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
        *("--fit.batch-size", "32", "--fit.min-steps-per-epoch", "2"),
    ]
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed sweep cannot tidy up
    with subprocess.Popen(
        [*argv, "--jobs", "1"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL
    ) as first:
        deadline = time.monotonic() + 200
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
    before = path.read_bytes()
    again = subprocess.run(
        [*argv, "--jobs", "2"], cwd=tmp_path, env=env, check=True, capture_output=True
    )
    rows = read_results(path)
    assert path.read_bytes().startswith(before)
    assert len({row.key for row in rows}) == len(rows)
    assert sorted(row.class_ for row in rows if row.method == "vae") == ["0", "2"]
    assert len({row.split_hash for row in rows}) == 2
    assert b"vae - knn" in again.stdout
