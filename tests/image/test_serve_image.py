"""The image `serve` for the CPU, built and run: what it promises, who it runs as, how it ends."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle_factory import table_scores

from .ask_service import ROWS
from .building import CHECKOUT
from .conftest import LABELS, Built, readable
from .container import Container, running
from .contents import TRAINING, compilers, files, left_behind, site_packages, without_bytecode

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]  # the first test builds
TOKEN = "s3cret"
ASK = Path(__file__).with_name("ask_service.py")


@pytest.fixture(scope="module")
def serve(built: Callable[..., Built]) -> Built:
    return built("serve")


@pytest.fixture(scope="module", params=[1000, 54321], ids=["uid 1000", "a random uid"])
def container(request: pytest.FixtureRequest, serve: Built, models: Path) -> Iterator[Container]:
    """A healthy service with its default settings, a token and a root that is read-only."""
    token = {"AMISS_TOKEN": TOKEN}
    with running(serve.image, serve.tree, models=models, user=request.param, env=token) as started:
        started.wait_until_healthy()
        yield started


def test_the_image_says_how_it_is_run(serve: Built) -> None:
    """User, command, ports, stop signal, health and labels are what docs/container.md says."""
    config = serve.image.config
    assert config["User"] == "1000:0"
    assert config["Entrypoint"] == ["dumb-init", "--single-child", "--", "amiss"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8000/tcp", "8001/tcp", "8002/tcp"}
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "amiss_serving.probe"]
    assert serve.image.env["AMISS_MODELS"] == "/models"
    assert serve.image.env["AMISS_HOST"] == "0.0.0.0"
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items()}
    assert labels["version"] == version("amiss")
    assert (labels["revision"], labels["source"]) == (LABELS["REVISION"], LABELS["SOURCE"])
    assert labels["licenses"] == "Apache-2.0"


def test_no_secret_and_no_index_is_in_the_configuration(serve: Built) -> None:
    """Neither variables nor labels hold a token or the place that packages came from."""
    told = json.dumps(serve.image.config).lower()
    assert not [
        word
        for word in ("token", "pip_", "index", "://")
        if word in told.replace(LABELS["SOURCE"], "")
    ]


def test_it_answers_over_http_and_grpc(container: Container) -> None:
    """Scores over both doors are those of the model, and without the token there are none."""
    seen: dict[str, Any] = json.loads(container.from_outside(sys.executable, ASK, TOKEN))
    expected = table_scores(np.array(ROWS, np.float32))
    over_http = [result["score"] for result in seen["http"]["results"]]
    np.testing.assert_allclose(over_http, expected, rtol=1e-5)
    np.testing.assert_allclose(seen["grpc"], expected, rtol=1e-5)
    assert 'amiss_rows_total{model="table",version="1"}' in seen["metrics"]
    assert seen["refused"] == [401, 401]


def test_every_process_is_the_user_asked_for(container: Container) -> None:
    """The first process and all others are of that user and group 0, without a capability."""
    told = container.execute("sh", "-c", "cat /proc/[0-9]*/status").stdout
    lines = [line.split() for line in told.splitlines()]
    users = {line[1] for line in lines if line[0] == "Uid:"}
    groups = {line[1] for line in lines if line[0] == "Gid:"}
    capabilities = {line[1] for line in lines if line[0] in ("CapEff:", "CapPrm:")}
    assert (users, groups) == ({str(container.user)}, {"0"})
    assert {int(value, 16) for value in capabilities} == {0}


def test_the_user_writes_to_tmp_and_state_only(container: Container) -> None:
    """Files can be made in /tmp and /state, which is home to the process, and nowhere else."""
    script = 'for d in / /opt/amiss /etc /models /tmp /state .; do touch "$d/x" && echo "$d"; done'
    written = container.execute("sh", "-c", script).stdout.splitlines()
    assert written == ["/tmp", "/state", "."]  # noqa: S108


def test_the_health_command_tells_ready_from_not(
    serve: Built, container: Container, tmp_path: Path
) -> None:
    """Exit code 0 with detectors loaded; 1, and why, with none, and where nothing listens."""
    assert container.check_health().returncode == 0
    token = {"AMISS_TOKEN": TOKEN}
    with running(serve.image, serve.tree, models=readable(tmp_path), env=token) as empty:
        for _ in range(100):
            told = empty.check_health()
            if "no detector" in told.stdout:
                break
        assert (told.returncode, told.stdout.count("\n")) == (1, 1)
    nowhere = {"AMISS_HTTP_PORT": "9"}
    asleep = running(
        serve.image, serve.tree, models=tmp_path, env=nowhere, command=["serve", "--help"]
    )
    with asleep as other:
        assert "usage: amiss serve" in _log_at_end(other)


def test_without_a_token_it_refuses_to_start(serve: Built, models: Path) -> None:
    """Exit code 2 and one line that says what to set, for its ports can be reached from outside."""
    with running(serve.image, serve.tree, models=models) as container:
        assert container.finished() == 2
    assert container.log.count("\n") == 1
    assert "AMISS_TOKEN" in container.log


def test_sigterm_ends_it_with_zero(serve: Built, models: Path) -> None:
    """On the stop signal it drains, ends with code 0, and leaves no process behind."""
    token = {"AMISS_TOKEN": TOKEN}
    with running(serve.image, serve.tree, models=models, env=token) as container:
        container.wait_until_healthy()
        container.signal(signal.SIGTERM)
        assert container.finished(timeout_s=30) == 0
    assert [json.loads(line)["message"] for line in container.log.splitlines()][-2:] == [
        "draining",
        "stopped",
    ]


def test_a_signal_before_python_listens_is_not_lost(serve: Built, models: Path) -> None:
    """SIGTERM while Python imports ends it; a first process ignores what it has no handler for."""
    with running(serve.image, serve.tree, models=models, command=["--version"]) as container:
        assert container.finished() == 0
    assert container.log == f"amiss {version('amiss')}\n"
    token = {"AMISS_TOKEN": TOKEN}
    with running(serve.image, serve.tree, models=models, env=token) as container:
        while not container.program_has_started():
            assert not container.log
        container.signal(signal.SIGTERM)
        assert container.finished(timeout_s=10) == 128 + signal.SIGTERM


def test_it_holds_neither_compilers_nor_training_packages(serve: Built) -> None:
    """No compiler or linker is on the PATH, and nothing that only training needs is installed."""
    installed = {path.name.partition("-")[0] for path in site_packages(serve.tree).iterdir()}
    assert {"onnxruntime", "amiss_serving", "amiss_cli"} <= installed
    assert not installed & TRAINING
    assert not compilers(serve.tree)


def test_the_build_left_nothing_behind(serve: Built) -> None:
    """No caches of pip or apt, no wheels and no settings of pip; pip itself is not installed."""
    assert left_behind(serve.tree) == []
    assert not list(site_packages(serve.tree).glob("pip*"))


def test_nobody_but_root_may_change_the_program(serve: Built) -> None:
    """Below /opt/amiss all is root's, and nothing is writable for its group or others."""
    every = [path.lstat() for path in files(serve.tree / "opt/amiss") if not path.is_symlink()]
    assert {stat.st_uid for stat in every} == {0}
    assert not any(stat.st_mode & 0o022 for stat in every)


def test_all_comes_compiled(serve: Built) -> None:
    """Modules have fresh bytecode: on a root that is read-only Python could never write it."""
    packages = site_packages(serve.tree)
    named = ("amiss_cli", "amiss_export", "amiss_serving", "numpy", "grpc", "onnx", "pydantic")
    assert not [p for name in named for p in without_bytecode(serve.tree, packages / name)]


def test_the_wheel_has_all_that_the_packages_need(serve: Built) -> None:
    """Each file of our packages is installed: recipes, templates, stubs, py.typed."""
    packages = site_packages(serve.tree)
    rooms = {"training": "amiss_training", "export": "amiss_export", "serving": "amiss_serving"}
    rooms |= {"cli": "amiss_cli", "clients/python": "amiss_client", "proto": "amiss"}
    expected = {
        path.relative_to(CHECKOUT / room)
        for room, package in rooms.items()
        for path in files(CHECKOUT / room / package)
        if "__pycache__" not in path.parts
    }
    assert {path for path in expected if not (packages / path).exists()} == set()


def _log_at_end(container: Container) -> str:
    assert container.finished() == 0
    return container.log
