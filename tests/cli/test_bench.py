"""`amiss bench`, as a person at a terminal sees it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amiss_cli.bench import LATENCY_FACTOR
from amiss_cli.main import main
from amiss_cli.serve import _parser, to_settings
from bundle_factory import write_table_bundle


def bench(models: Path, *options: str) -> list[str]:
    return ["bench", "table", "--models", str(models), "--device", "cpu", *options]


def test_the_best_setting_is_marked_and_serve_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line of the table is the best, and the file written holds that line's settings."""
    write_table_bundle(tmp_path)
    output = tmp_path / "serve.yaml"
    assert main(bench(tmp_path, "--seconds", "0.002", "--output", str(output))) == 0
    shown = capsys.readouterr().out
    (best,) = [line.split() for line in shown.splitlines() if line.rstrip().endswith("best")]
    settings = to_settings(_parser().parse(["--config", str(output)]))
    got = (settings.threads, settings.parallel_runs, settings.max_batch_rows)
    assert got == tuple(map(int, best[:3]))
    assert (settings.runtime, settings.device) == ("onnx", "cpu")
    assert str(output) in shown
    settings.validate()


def test_without_an_output_the_setting_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written; the options end the output, ready to paste into a file."""
    write_table_bundle(tmp_path)
    assert main(bench(tmp_path, "--seconds", "0.002")) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("max_batch_rows: ")
    assert [p.name for p in tmp_path.iterdir()] == ["table"]


def test_the_help_says_what_is_best(capsys: pytest.CaptureFixture[str]) -> None:
    """--help defines the best setting and gives the factor."""
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "most rows a second among those whose p99 is within --latency-factor" in shown
    assert f"(default: {LATENCY_FACTOR})" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seconds", "0"), "--seconds must be > 0, got 0.0"),
        (("--seconds", "nan"), "--seconds must be > 0, got nan"),
        (("--latency-factor", "0.5"), "--latency-factor must be >= 1, got 0.5"),
        (("--output", "/nowhere/serve.yaml"), "there is no folder /nowhere"),
        (("--output", __file__), "exists"),
        (("--device", "gpu"), "auto, cpu or cuda:0, got 'gpu'"),
        (("--runtime", "tea"), "tea"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    options: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line names the option and the value, before anything is measured."""
    write_table_bundle(tmp_path)
    assert main(bench(tmp_path, *options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_detector_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt name ends in one line that names it, exit code 2."""
    assert main(bench(tmp_path)) == 2
    assert "no detector 'table'" in capsys.readouterr().err


def test_an_interrupted_bench_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the sweep: exit code 130, one line, no file, half or whole."""
    write_table_bundle(tmp_path)
    options = bench(tmp_path, "--seconds", "60", "--output", str(tmp_path / "serve.yaml"))
    process = subprocess.Popen(
        [sys.executable, "-m", "amiss_cli.main", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "settings of table@1, 60 s each" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["table"]
