"""Prometheus with our configuration: checked by promtool, then run against a real service."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from amiss_serving.server import Addresses, serving
from amiss_serving.settings import Settings
from amiss_serving.sockets import listen_tcp
from bundle_factory import write_table_bundle

from .conftest import DEPLOY, run
from .queries import queries

FOLDER = DEPLOY / "prometheus"
TOKEN = "correct-horse"
TOKEN_PATH = "/run/secrets/amiss_token"
PATIENCE_S = 20
WINDOW = "1m"  # for Grafana's $__rate_interval
ODD = [[100.0, 100.0, 100.0]] * 500  # at 5 % expected 25 alarms are due
# Nothing has happened yet that these would show.
QUIET = {"Turned away: A", "Verdicts that differ: A", "Time for copied rows: A"}


def test_promtool_accepts_the_configuration(promtool: str, tmp_path: Path) -> None:
    """`promtool check config`, with the token where the file says it is but for the folder."""
    config = configure(tmp_path, "127.0.0.1:8002")
    run(promtool, "check", "config", config)


def test_promtool_accepts_the_rules(promtool: str) -> None:
    """`promtool check rules` has no complaint, and each alert says how bad it is and what to do."""
    run(promtool, "check", "rules", FOLDER / "rules.yml")
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"].keys() == {"summary", "description"}


def test_each_alert_fires_when_it_should_and_not_before(promtool: str) -> None:
    """`promtool test rules` passes, and there is a case for each alert of both kinds."""
    run(promtool, "test", "rules", "rules_test.yml", cwd=FOLDER)
    cases = [
        case
        for test in yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    names = {alert["alert"] for alert in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def configure(folder: Path, target: str) -> Path:
    """A copy of the configuration that looks every second and fires at once.

    Only paths and times differ from what is deployed.
    """
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")
    text = (FOLDER / "prometheus.yml").read_text()
    assert TOKEN_PATH in text
    text = text.replace(TOKEN_PATH, str(token)).replace("15s", "1s")
    (folder / "prometheus.yml").write_text(text)
    rules = (FOLDER / "rules.yml").read_text().splitlines()
    hurried = [line for line in rules if not line.strip().startswith("for: ")]
    (folder / "rules.yml").write_text("\n".join(hurried))
    (folder / "targets.yml").write_text(yaml.safe_dump([{"targets": [target]}]))
    return folder / "prometheus.yml"


@dataclass(frozen=True)
class Watched:
    """A service behind TOKEN and the client of the Prometheus that scrapes it."""

    service: Addresses
    api: httpx.AsyncClient

    async def values(self, query: str) -> list[float]:
        """What the query finds now. Raises when it is no PromQL."""
        answer = await self.api.get("/api/v1/query", params={"query": query})
        assert answer.status_code == 200, f"{query}: {answer.text}"
        return [float(found["value"][1]) for found in answer.json()["data"]["result"]]

    async def until(self, query: str, least: float) -> None:
        """Return when the query finds one value, at least so large."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not any(value >= least for value in await self.values(query)):
            assert time.monotonic() < deadline_s, f"{query}: {await self.values(query)}"
            await asyncio.sleep(0.2)


@contextmanager
def scraping(prometheus: str, config: Path) -> Iterator[str]:
    """The URL of a Prometheus that runs with the configuration and is killed afterwards."""
    with listen_tcp("127.0.0.1", 0, option="a free port") as free:
        address = "{}:{}".format(*free.getsockname())
    options = {
        "config.file": config,
        "storage.tsdb.path": config.parent / "data",
        "web.listen-address": address,
    }
    told = config.parent / "log"
    with told.open("w") as log:
        process = subprocess.Popen(
            [prometheus, *(f"--{key}={value}" for key, value in options.items())], stderr=log
        )
        try:
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(
    prometheus: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    """table@1 being served with a token file, and a Prometheus that has scraped it."""
    folder = tmp_path_factory.mktemp("prometheus")
    write_table_bundle(folder / "models")
    (folder / "amiss").mkdir()
    (folder / "amiss" / "token").write_text(TOKEN)
    ports: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    settings = Settings(
        models=str(folder / "models"),
        device="cpu",
        token_file=str(folder / "amiss" / "token"),
        **ports,
    )
    async with serving(settings) as addresses:
        with scraping(prometheus, configure(folder, addresses.metrics)) as url:
            async with httpx.AsyncClient(base_url=url, timeout=5) as api:
                found = Watched(addresses, api)
                await open_for_questions(api)
                await found.until('amiss_rows_total{model="table"}', 0)
                yield found


async def open_for_questions(api: httpx.AsyncClient) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            if (await api.get("/-/ready")).status_code == 200:
                return
        except httpx.ConnectError:
            pass
        assert time.monotonic() < deadline_s, "Prometheus does not come up"
        await asyncio.sleep(0.05)


async def score(service: Addresses, rows: list[list[float]]) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://{service.http}", headers=headers) as client:
        answer = await client.post("/v1/detectors/table:score", json={"rows": rows})
        assert answer.status_code == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_prometheus_finds_the_service_up(watched: Watched) -> None:
    """Its own API has one target of the job amiss, healthy, scraped with the token file."""
    assert await watched.values('up{job="amiss"}') == [1]
    answer = await watched.api.get("/api/v1/targets", params={"state": "active"})
    (target,) = answer.json()["data"]["activeTargets"]
    assert target["scrapePool"] == "amiss"
    assert (target["health"], target["lastError"]) == ("up", "")
    assert target["scrapeUrl"] == f"http://{watched.service.metrics}/metrics"


@pytest.mark.asyncio(loop_scope="module")
async def test_without_the_token_there_is_nothing_to_scrape(watched: Watched) -> None:
    """So it was Prometheus' credentials file that opened the door."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{watched.service.metrics}/metrics")
    assert answer.status_code == 401


@pytest.mark.asyncio(loop_scope="module")
async def test_anomalies_raise_the_counter_and_fire_the_alert(watched: Watched) -> None:
    """Before, AmissAlarmRateHigh is silent; 500 odd rows, and it fires with the detector's name."""
    firing = 'ALERTS{alertname="AmissAlarmRateHigh", alertstate="firing"}'
    assert await watched.values("amiss_anomalies_total") == [0]
    assert await watched.values(firing) == []
    await score(watched.service, ODD)
    await watched.until("amiss_anomalies_total", len(ODD))
    await watched.until(firing, 1)
    answer = await watched.api.get("/api/v1/alerts")
    (alert,) = answer.json()["data"]["alerts"]  # and no other
    assert alert["state"] == "firing"
    told = {"alertname": "AmissAlarmRateHigh", "model": "table", "version": "1", "job": "amiss"}
    assert alert["labels"] == {**told, "severity": "warning"}
    assert alert["annotations"]["summary"].startswith("table@1 found ")


@pytest.mark.asyncio(loop_scope="module")
async def test_every_query_of_the_dashboard_is_answered(watched: Watched) -> None:
    """Prometheus understands each, and after some traffic each has something to show."""
    await score(watched.service, ODD[:1])
    await watched.until("model:amiss_requests:rate5m", 0)  # from its second look at them on
    empty = set()
    for place, query in queries(DEPLOY / "grafana/dashboards/amiss.json").items():
        asked = query.replace("$__rate_interval", WINDOW).replace("$model", ".+")
        if not await watched.values(asked):
            empty.add(place)
    assert empty == QUIET
