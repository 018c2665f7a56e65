"""`make gpu-check`: its judgement, with the CPU in the place of a device, and without one."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from amiss_export.bundle import read_bundle, resolve_version
from amiss_export.decision import Verdicts
from amiss_serving.tuning import Measured, Setting
from bench.serving.gpu_checks import (
    MOST_GROWTH_MB,
    in_mixed_sizes,
    memory_lines,
    parity,
    parity_line,
    speed,
    speed_line,
)
from bench.serving.gpu_machine import gpu_test_lines, outcome_lines, version_lines
from bench.serving.models import NAME, TABLE, Model, rows

SCRIPT = Path(__file__).parents[1] / "bench" / "bench_gpu.py"
Served = tuple[Model, Model]


def test_without_a_device_the_check_is_not_green() -> None:
    """It says so in one line and exits with 2."""
    done = subprocess.run(
        [sys.executable, SCRIPT],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "gpu-check: the driver shows no CUDA device, so that nothing was checked"
    ]


def test_the_cpu_agrees_with_itself(served_models: Served) -> None:
    """Both runtimes of both models pass the bar when the device is the CPU, a line each."""
    lines = [line for model in served_models for line in parity(model, device="cpu")]
    assert [line.held for line in lines] == [True] * 4
    assert str(lines[0]).endswith("(<= 1e-05, at most 1 in 1,000: pass)")


@pytest.mark.parametrize(
    ("off", "flipped", "held"),
    [(0.0, 0, True), (0.9e-5, 1, True), (1.1e-5, 0, False), (0.0, 2, False), (np.nan, 0, False)],
)
def test_a_score_or_a_verdict_too_far_is_no_parity(
    served_models: Served, off: float, flipped: int, held: bool
) -> None:
    """A score 0.9e-5 of the scale off and one verdict of 1,000 pass; more does not, nor does what
    is no number."""
    model = served_models[1]
    version = resolve_version(model.models, model.name)
    manifest = read_bundle(model.models, model.name, version).manifest
    score, is_anomaly = np.zeros(1000, np.float32), np.zeros(1000, bool)
    expected = Verdicts(score, score, score, is_anomaly)
    got = Verdicts(score.copy(), score, score, is_anomaly.copy())
    got.score[7] += off * manifest.decision.scale
    got.is_anomaly[:flipped] = True
    assert parity_line("m", got, expected, of=manifest).held is held


def test_batches_of_mixed_sizes_are_all_the_rows() -> None:
    """1,000 rows come in every power of two up to 256, in order, none lost."""
    x = rows(1000)
    parts = in_mixed_sizes(x)
    np.testing.assert_array_equal(np.concatenate(parts), x)
    assert {2**i for i in range(9)} <= {len(part) for part in parts}


def measured(rows_per_s: float, max_batch_rows: int) -> Measured:
    return Measured(Setting(1, 1, max_batch_rows), rows_per_s, 1.0, 2.0, 0.1)


def test_only_convolutions_in_large_batches_have_to_be_faster() -> None:
    """A device half as fast as the CPU fails there, and is merely reported elsewhere."""
    slow, fast = 50.0, 100.0
    for name, n, held in ((NAME, 256, False), (NAME, 64, None), (TABLE, 256, None)):
        assert speed_line(name, measured(slow, n), measured(fast, n)).held is held
    line = speed_line(NAME, measured(fast, 256), measured(slow, 256))
    assert line.held
    assert "2.00 x" in line.figure


def test_the_cpu_is_measured_beside_itself(served_models: Served) -> None:
    """A line for each size of batch, by the engine that serves."""
    lines = list(speed(served_models[1], device="cpu", seconds=0.01))
    assert [line.name for line in lines] == [f"table, batches of {n}" for n in (1, 16, 64, 256)]


def test_growth_counts_from_the_first_requests_on() -> None:
    """What warming up takes is reported, what comes after it is judged."""
    held = list(memory_lines((10, 20), (100.0, 500.0, 500.0 + MOST_GROWTH_MB)))
    assert [line.name for line in held][:3] == ["ready", "after 10 requests", "after 30 requests"]
    assert held[-1].held
    assert not list(memory_lines((10, 20), (100.0, 500.0, 501.0 + MOST_GROWTH_MB)))[-1].held


def test_a_skipped_test_is_not_held() -> None:
    """Passed alone holds; a test that was skipped or failed is named with its first line."""
    passed, skipped = (ElementTree.Element("testcase", name=name) for name in ("a", "b"))
    ElementTree.SubElement(skipped, "skipped", message="no device\nand more")
    assert [line.held for line in outcome_lines([passed])] == [True]
    lines = outcome_lines([passed, skipped])
    assert [line.held for line in lines] == [False, None]
    assert (lines[0].figure, lines[1].figure) == ("1 passed, 1 skipped", "b: no device")
    assert outcome_lines([])[0].held is False


def test_marked_tests_are_found_and_run(tmp_path: Path) -> None:
    """Of a folder's tests those marked gpu run, in a process of their own."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a CUDA device\n")
    body = "import pytest\n@pytest.mark.gpu\ndef test_a(): pass\ndef test_b(): assert False\n"
    (folder / "test_one.py").write_text(body)
    (folder / "test_none.py").write_text("syntax error")
    assert [line.figure for line in gpu_test_lines(folder)] == ["1 passed"]


def test_versions_are_those_installed() -> None:
    """numpy's is what numpy says."""
    assert {line.name: line.figure for line in version_lines()}["numpy"] == np.__version__
