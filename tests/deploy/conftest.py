"""Where the deployment lies, and the real programs that read it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import pytest

from amiss_serving.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
Venv = Callable[..., Path]


def missing(what: str) -> NoReturn:
    """Skip, or fail where CI must have it."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"{what} is not to be had here")


@pytest.fixture(scope="session")
def venv(request: pytest.FixtureRequest) -> Venv:
    """Makes the bin folder of a venv with exactly these requirements, kept in pytest's cache.

    Each argument is one call of pip, in order.
    """
    assert request.config.cache
    cache = request.config.cache

    def make(name: str, *installs: tuple[str, ...]) -> Path:
        major, minor = sys.version_info[:2]
        folder = cache.mkdir(f"{name}-py{major}.{minor}")
        ready = folder / ".ready"
        wanted = "\n".join(" ".join(install) for install in installs)
        if ready.exists() and ready.read_text() == wanted:
            return folder / "bin"
        pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install"]
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            for install in installs:
                command = [*pip, "--quiet", *install]
                subprocess.run(command, check=True, capture_output=True, timeout=240)
        except (subprocess.SubprocessError, OSError) as error:
            missing(f"{name} in a venv of its own ({error})")
        ready.write_text(wanted)
        return folder / "bin"

    return make


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker, of the Debian package prometheus."""
    return shutil.which("promtool") or missing("promtool (Debian package prometheus)")


@pytest.fixture(scope="session")
def prometheus() -> str:
    """Prometheus itself."""
    return shutil.which("prometheus") or missing("prometheus (Debian package prometheus)")


def run(*command: Any, **options: Any) -> str:
    """What the command printed. Fails the test with all it said when its exit code is not 0."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)],
        **{"capture_output": True, "text": True, "env": environment, "timeout": 60, **options},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    output: str = done.stdout
    return output


def settings_of(environment: dict[str, Any]) -> Settings:
    """The settings that these AMISS_ variables make; a name that is no option is an error."""
    types = {field.name: type(field.default) for field in fields(Settings)}
    values = {
        name: types[name](value) if types[name] in (int, float) else value
        for name, value in (
            (key.removeprefix("AMISS_").lower(), value)
            for key, value in environment.items()
            if key.startswith("AMISS_")
        )
    }
    return Settings(**values)
