"""The `amiss` command: quick help, honest exit codes, no tracebacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from amiss_cli.main import COMMANDS, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`amiss`, -h and --help print every sub-command and succeed."""
    for argv in ([], ["-h"], ["--help"]):
        assert main(argv) == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in COMMANDS)


def test_help_and_version_load_no_room() -> None:
    """--help and --version import neither torch, pandas, grpc nor pydantic: they answer at once."""
    code = (
        "import sys; from amiss_cli.main import main; main(sys.argv[1:]);"
        "print([m for m in ('torch', 'pandas', 'grpc', 'pydantic', 'numpy') if m in sys.modules])"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, flag], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command names itself and shows the usage."""
    assert main(["trian"]) == 2
    assert "no command 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_defaults(command: str) -> None:
    """`amiss COMMAND --help` succeeds and mentions its defaults."""
    done = subprocess.run(
        [sys.executable, "-m", "amiss_cli.main", command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "default" in done.stdout or command == "models", "models has commands of its own"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--recipe", "nothing"], "no recipe 'nothing'"),
        (["train", "--recipe", "table", "--data", "/nowhere.csv"], "/nowhere.csv"),
        (["evaluate", "ghost", "--models", "/nowhere"], "no detector 'ghost'"),
        (["models", "show", "../x", "--models", "/nowhere"], "detector name"),
        (["score", "x.csv"], "arguments are required: --detector"),
        (["models", "lst"], "invalid choice: 'lst'"),
        (["serve", "--host", "0.0.0.0"], "no token is set"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad input ends with exit code 2 and one line that says what was wrong."""
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the models folder should be ends with exit code 1 and one line."""
    (tmp_path / "models").write_text("")
    data = tmp_path / "a.csv"
    data.write_text("a\n" + "\n".join(map(str, range(40))))
    argv = ["train", "--data", str(data), "--name", "a", "--models", str(tmp_path / "models")]
    assert main(argv) == 1
    error = capsys.readouterr().err.strip()
    assert str(tmp_path / "models") in error
    assert len(error.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """`amiss --help` into a closed pipe ends quietly."""
    with subprocess.Popen(
        [sys.executable, "-m", "amiss_cli.main", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == ""
    assert command.returncode == 1
