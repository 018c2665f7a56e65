"""Where `amiss serve` takes its settings from, who wins, and that the token never shows."""

from pathlib import Path

import pytest

from amiss_cli.main import main
from amiss_cli.serve import _parser, to_settings
from amiss_export.errors import BadInput
from amiss_serving.settings import Settings

TOKEN = "correct-horse"


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's own AMISS_TOKEN stays out of the tests."""
    monkeypatch.delenv("AMISS_TOKEN", raising=False)


def settings_of(*argv: str) -> Settings:
    return to_settings(_parser().parse(argv))


def test_flags_win_over_the_file_and_the_file_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting comes from the nearest place that names it, and else is the default."""
    config = tmp_path / "serve.yaml"
    config.write_text("http_port: 18111\ngrpc_port: 18112\n")
    monkeypatch.setenv("AMISS_HTTP_PORT", "18120")
    monkeypatch.setenv("AMISS_GRPC_PORT", "18121")
    monkeypatch.setenv("AMISS_DRAIN_S", "3")
    given = settings_of("--config", str(config), "--grpc-port", "18130")
    assert (given.grpc_port, given.http_port, given.drain_s) == (18130, 18111, 3)
    assert given.metrics_port == Settings().metrics_port


def test_the_token_comes_from_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AMISS_TOKEN is read; a flag or a key of that name is refused, so that neither can leak it."""
    monkeypatch.setenv("AMISS_TOKEN", TOKEN)
    assert settings_of().token == TOKEN
    config = tmp_path / "serve.yaml"
    config.write_text(f"token: {TOKEN}\n")
    with pytest.raises(BadInput, match="'token' is not accepted") as caught:
        settings_of("--config", str(config))
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("option", ["--help", "--print-config"])
def test_the_token_is_not_printed(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the help nor the configuration in force holds the token."""
    monkeypatch.setenv("AMISS_TOKEN", TOKEN)
    with pytest.raises(SystemExit):
        settings_of(option)
    printed = capsys.readouterr().out
    assert "http" in printed
    assert TOKEN not in printed


@pytest.mark.parametrize("options", [("--token", "x"), ("--token=x",), ("--http", "1"), ("x",)])
def test_no_option_is_guessed(options: tuple[str, ...]) -> None:
    """The beginning of an option is not taken for it: --token must not read a file."""
    with pytest.raises(BadInput, match="unrecognized arguments"):
        settings_of(*options)


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        (b"http_port: abc", (), "http_port"),
        (b"htpp_port: 1", (), "'htpp_port' is not accepted"),
        (b"a: [1", (), "parsing config"),
        (b"\xff\xfe\x00", (), "UTF-8"),
        (b"drain_s: 1", ("--http-port", "abc"), "http_port"),
        (b"http_port: -1", (), "http_port must lie between 0 and 65535, got -1"),
        (b"drain_s: 1", ("--config", "nowhere.yaml"), "nowhere.yaml"),
        (b"host: 0.0.0.0", (), "--insecure"),
        (b"provider_option: 5", (), "provider_option must be KEY=VALUE, got '5'"),
    ],
)
def test_a_wrong_value_in_file_or_flag_is_one_line_and_exit_code_2(
    config: bytes,
    flags: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line names what is wrong, and nothing is served."""
    (tmp_path / "serve.yaml").write_bytes(config)
    assert main(["serve", "--config", str(tmp_path / "serve.yaml"), *flags]) == 2
    assert message in one_line(capsys)


def test_a_wrong_value_in_the_environment_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An AMISS_ variable is checked like a flag; an empty token is no token."""
    monkeypatch.setenv("AMISS_TOKEN", "")
    assert main(["serve"]) == 2
    assert "AMISS_TOKEN) is empty" in one_line(capsys)
    monkeypatch.setenv("AMISS_HTTP_PORT", "abc")
    assert main(["serve"]) == 2
    assert "http_port" in one_line(capsys)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that was printed, on stderr."""
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("amiss serve: ")
    return line


@pytest.mark.parametrize(
    ("flags", "config", "environment"),
    [
        (("--provider-option", "a=1", "--provider-option", "b=2"), "", ""),
        ((), "provider_option: [a=1, b=2]", ""),
        ((), "", "[a=1, b=2]"),
        (("--provider-option", "b=2"), "provider_option: a=1", ""),
        (("--provider-option", "b=2"), "", "a=1"),
    ],
)
def test_provider_options_come_from_flag_file_or_environment(
    flags: tuple[str, ...],
    config: str,
    environment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One or several KEY=VALUE are read by key, and flags add to what is set elsewhere."""
    (tmp_path / "serve.yaml").write_text(config or "{}")
    if environment:
        monkeypatch.setenv("AMISS_PROVIDER_OPTION", environment)
    given = settings_of("--config", str(tmp_path / "serve.yaml"), *flags)
    assert given.provider_options() == {"a": "1", "b": "2"}
