"""The sweep behind `amiss bench`: what is tried, what is measured, which one is best."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from amiss_export.bundle import Column, ImageInput, TableInput
from amiss_export.decode import check_images, check_rows
from amiss_serving.runtimes import RuntimeKind, RuntimeOptions
from amiss_serving.tuning import (
    BATCH_ROWS,
    CALLERS_PER_RUN,
    Measured,
    Setting,
    best_of,
    example_rows,
    measure,
    settings_for,
    sweep,
    usable_cores,
)
from torchscript_bundles import table_with_torchscript

from .conftest import FakeRuntime, MakeDetector


def test_threads_and_runs_together_fit_the_cores() -> None:
    """On six cores every pair of powers of two up to their product 6 is tried, and no other."""
    pairs = {(s.threads, s.parallel_runs) for s in settings_for(6)}
    assert pairs == {(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)}
    assert [s.max_batch_rows for s in settings_for(1)] == list(BATCH_ROWS)


def test_on_a_device_one_thread_is_enough() -> None:
    """A run on CUDA is not tried with more threads."""
    assert {s.threads for s in settings_for(8, device="cuda:0")} == {1}


async def test_every_run_is_one_full_batch(make_detector: MakeDetector) -> None:
    """Whatever the setting, the engine never runs less than a batch, nor two requests together."""
    runtime = FakeRuntime()
    setting = Setting(threads=1, parallel_runs=2, max_batch_rows=5)
    measured = await measure(make_detector(runtime), setting, seconds=0.01)
    assert {n for n, _ in runtime.calls} == {5}
    assert len(runtime.calls) > CALLERS_PER_RUN * setting.parallel_runs
    assert measured.setting is setting
    assert 0 < measured.p50_ms <= measured.p99_ms
    assert measured.rows_per_s > 0
    assert measured.cpu_s_per_1000_rows > 0


@pytest.mark.parametrize("kind", get_args(RuntimeKind))
def test_a_sweep_measures_each_setting_in_turn(tmp_path: Path, kind: RuntimeKind) -> None:
    """Every setting comes back measured, in order, with either runtime."""
    version = table_with_torchscript(tmp_path)
    settings = [Setting(1, 1, 1), Setting(1, 2, 4), Setting(2, 1, 4)]
    measured = sweep(
        tmp_path,
        "table",
        version,
        options=RuntimeOptions(kind=kind, device="cpu"),
        settings=settings,
        seconds=0.005,
    )
    assert [m.setting for m in measured] == settings


def test_the_best_has_the_most_rows_among_the_quick_enough() -> None:
    """With factor 10 a setting 11 times slower than the quickest loses, however many its rows."""

    def made(rows_per_s: float, p99_ms: float) -> Measured:
        return Measured(Setting(1, 1, 1), rows_per_s, p99_ms, p99_ms, 0.0)

    quick, good, slow = made(100, 1.0), made(500, 10.0), made(900, 11.0)
    assert best_of([quick, good, slow], latency_factor=10) is good
    assert best_of([quick, good, slow], latency_factor=1) is quick
    assert best_of([quick, good, slow], latency_factor=20) is slow


def test_example_rows_are_rows_the_detector_takes() -> None:
    """Noise for pictures and tables passes the engine's own check."""
    image = ImageInput.model_validate({"channels": 3, "height": 4, "width": 5})
    assert check_images(example_rows(image, 2), image).shape == (2, 3, 4, 5)
    table = TableInput(
        columns=(
            Column(name="a", kind="number", dtype="float64"),
            Column(name="colour", kind="category", dtype="str", categories=("blue", "red")),
        )
    )
    rows = check_rows(example_rows(table, 7), table)
    assert rows.shape == (7, 2)
    assert set(rows[:, 1]) == {2.0}, "the first category's code"


@pytest.mark.parametrize(
    ("quota", "most"),
    [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", 10_000), ("strange", 10_000)],
)
def test_a_containers_quota_counts(quota: str, most: int, tmp_path: Path) -> None:
    """A container with one processor's quota has one core, whatever the machine has."""
    (tmp_path / "cpu.max").write_text(quota)
    cores = usable_cores(tmp_path / "cpu.max")
    assert 1 <= cores <= most
    assert usable_cores(tmp_path / "nowhere") >= cores
    assert np.isfinite(cores)
