"""`amiss sweep`: its options, and its summary without any training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amiss_cli.main import main
from amiss_cli.sweep import read_options
from amiss_training.results import append_results
from result_rows import result


def test_a_summary_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--summary prints methods and differences of a file that is there, and leaves it alone."""
    path = tmp_path / "r.csv"
    append_results(path, [result(), result("knn", 0.8), result(seed=1), result("knn", 0.7, seed=1)])
    before = path.read_bytes()
    assert main(["sweep", "--summary", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "mnist-one-class, auroc, over normal_class" in shown
    assert "vae - knn" in shown
    assert path.read_bytes() == before


def test_a_summary_needs_no_torch(tmp_path: Path) -> None:
    """--summary answers without loading torch or Lightning."""
    path = tmp_path / "r.csv"
    append_results(path, [result()])
    code = (
        "import sys; from amiss_cli.main import main; main(sys.argv[1:]);"
        "print([m for m in ('torch', 'lightning', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", "--summary", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_options_are_the_sweeps_and_each_runs(tmp_path: Path) -> None:
    """Lists go to the sweep, every other option of `amiss train` to each run."""
    argv = ["--recipe", "table", "--data", "a.csv", "--data", "b.csv", "--vae.latent-dim", "3"]
    config, results, jobs = read_options(
        [*argv, "--seeds", "0,1", "--detectors", "vae,ensemble", "--fit.batch-size=7"]
    )
    assert config.data == ("a.csv", "b.csv")
    assert (config.seeds, config.detectors) == ((0, 1), ("vae", "ensemble"))
    assert (config.base.vae.latent_dim, config.base.fit.batch_size) == (3, 7)
    assert (config.over, config.classes, config.control) == ("none", ("all",), None)
    assert results == Path("docs/results/table.csv")
    assert jobs == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipe", "table", "--data", "x.csv", "--seed", "3"], "--seeds"),
        (["--recipe", "table", "--data", "x.csv", "--detector=vae"], "--detectors"),
        (["--recipe", "table", "--data", "x.csv", "--seeds", "one"], "expected whole numbers"),
        (["--recipe", "table"], "expected --data"),
        (["--recipe", "table", "--data", "x.csv", "--sedes", "1"], "--sedes"),
        (["--recipe", "table", "--data", "x.csv", "--jobs", "0"], "jobs"),
        (["--summary", "/nowhere.csv"], "expected rows of a sweep"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option ends with exit code 2 and one line that says what was wrong."""
    assert main(["sweep", *argv]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_a_failing_job_is_exit_code_1_and_the_rest_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two jobs, one of which cannot be done, the other's rows are summed up."""
    rows = "".join(f"{i % 7},{i % 11},{i % 2}\n" for i in range(200))
    (tmp_path / "good.csv").write_text("a,b,label\n" + rows)
    (tmp_path / "bad.csv").write_text("a,b,other\n" + rows)
    argv = ["sweep", "--label-column", "label", "--jobs", "2", "--alarm-rate", "0.2"]
    for name in ("good", "bad"):
        argv += ["--data", str(tmp_path / f"{name}.csv")]
    argv += ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
    assert main([*argv, "--results", str(tmp_path / "r.csv")]) == 1
    shown = capsys.readouterr()
    assert "bad, seed 0: " in shown.err
    assert "no column 'label'" in shown.err
    assert "good, seed 0: done" in shown.err
    assert "vae - knn" in shown.out


def test_when_every_job_fails_its_own_words_are_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, the job's reason, and nothing about a file that nobody wrote."""
    argv = ["sweep", "--recipe", "table", "--data", str(tmp_path / "none.csv"), "--jobs", "1"]
    assert main([*argv, "--results", str(tmp_path / "r.csv")]) == 1
    error = capsys.readouterr().err
    assert "none.csv" in error.splitlines()[-1]
