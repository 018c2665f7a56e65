"""What the service refuses to start with."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from amiss_export.errors import BadInput
from amiss_serving.settings import Settings, is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_beyond_loopback_a_token_is_needed(host: str) -> None:
    """Such a host is refused without a token, and accepted with one or with insecure."""
    with pytest.raises(BadInput, match="--insecure"):
        Settings(host=host).validate()
    Settings(host=host, token="secret").validate()
    Settings(host=host, insecure=True).validate()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    """On loopback the defaults are fine."""
    assert is_loopback(host)
    Settings(host=host).validate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"http_port": 9000, "grpc_port": 9000}, "ports must differ"),
        ({"models": __file__}, "models must be a folder of bundles, got the file"),
        ({"http_port": 70000}, "http_port must lie between 0 and 65535, got 70000"),
        ({"max_batch_rows": 0}, "max_batch_rows must be > 0, got 0"),
        ({"default_timeout_s": float("nan")}, "default_timeout_s must be > 0, got nan"),
        ({"drain_s": -1.0}, "drain_s must be >= 0, got -1.0"),
        ({"drain_delay_s": 31.0}, r"drain_delay_s must be <= drain_s \(30.0\), got 31.0"),
        ({"http_socket": "a", "grpc_socket": "a"}, "must differ, got a twice"),
        ({"max_queue_rows": 10}, "max_queue_rows must be >= max_request_rows"),
        ({"repository_mode": "magic"}, "repository_mode must be one of"),
        ({"shadow_share": 1.5}, "shadow_share must lie between 0 and 1, got 1.5"),
        ({"poll_s": 0}, "poll_s must be > 0, got 0"),
        ({"log_level": "loud"}, "log_level must be one of"),
        ({"runtime": "tea"}, "runtime must be one of .*torchscript.*, got 'tea'"),
        ({"parallel_runs": 0}, "parallel_runs must be > 0, got 0"),
        ({"gpu_mem_limit_bytes": 0}, "gpu_mem_limit_bytes must be > 0, got 0"),
        ({"warm_up_rows": (8, 0)}, r"warm_up_rows must be batch sizes >= 1, got \(8, 0\)"),
        ({"provider_option": ("use_tf32",)}, "provider_option must be KEY=VALUE, got 'use_tf32'"),
        ({"token": ""}, "AMISS_TOKEN.* is empty"),
        ({"token": "two words"}, "printable ASCII"),
        ({"token": "a", "token_file": "b"}, "keep one"),
        ({"token_file": "nowhere"}, "nowhere cannot be read"),
    ],
)
def test_a_setting_that_cannot_be_served_is_named(options: dict[str, Any], message: str) -> None:
    """The refusal names the key and the value."""
    with pytest.raises(BadInput, match=message):
        Settings(**options).validate()


def test_free_ports_may_repeat() -> None:
    """Port 0 stands for a free port, so all three may be 0."""
    Settings(http_port=0, grpc_port=0, metrics_port=0).validate()


def test_the_token_file_is_read_without_its_newline(tmp_path: Path) -> None:
    """A mounted secret may end in a newline; an empty one is refused."""
    secret = tmp_path / "token"
    secret.write_text("secret\n")
    assert Settings(token_file=str(secret)).read_token() == "secret"
    secret.write_text("\n")
    with pytest.raises(BadInput, match="is empty"):
        Settings(token_file=str(secret)).validate()


def test_the_token_is_never_shown() -> None:
    """repr, which ends up in logs and tracebacks, holds no token."""
    assert "secret" not in repr(Settings(token="secret"))


def test_every_setting_is_documented() -> None:
    """Each field has its line in the docstring (help text) and in serving/README.md's table."""
    readme = (Path(__file__).parents[2] / "serving" / "README.md").read_text()
    for field in fields(Settings):
        assert f"\n    {field.name}: " in inspect.cleandoc(Settings.__doc__ or "")
        option = "AMISS_TOKEN" if field.name == "token" else f"--{field.name.replace('_', '-')}"
        assert f"| `{option}` |" in readme
