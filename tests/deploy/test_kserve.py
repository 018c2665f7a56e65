"""The KServe manifests against the models of KServe's own package."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import DEPLOY, Venv, run, settings_of

KUBERNETES, KSERVE = "kubernetes==36.0.3", "kserve==0.21.0"
SCRIPT = Path(__file__).with_name("kserve_script.py")
RUNTIME, SERVICE = (
    DEPLOY / "kserve" / f"{name}.yaml" for name in ("serving-runtime", "inference-service")
)


@pytest.fixture(scope="module")
def python(venv: Venv) -> Path:
    """The Python of a venv with KServe's models; its other requirements are a server's."""
    return venv("kserve", (KUBERNETES,), (KSERVE, "--no-deps")) / "python"


@pytest.fixture(scope="module")
def runtime() -> dict[str, Any]:
    """The ServingRuntime."""
    document: dict[str, Any] = yaml.safe_load(RUNTIME.read_text())
    return document


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """The InferenceService."""
    document: dict[str, Any] = yaml.safe_load(SERVICE.read_text())
    return document


def test_both_fit_kserves_models(python: Path) -> None:
    """No key is unknown or missing and no value of another type, down to the container's own."""
    run(python, SCRIPT, RUNTIME, SERVICE)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("protocolVersions", "protocolVersion", "protocolVersion: V1alpha1ServingRuntimeSpec"),
        ("readinessProbe", "readyProbe", "readyProbe: V1Container"),
        ("periodSeconds: 5", "periodSeconds: soon", "expected int, got 'soon'"),
        ("- name: kserve-container", "- tty: true", "`name`"),
    ],
)
def test_a_mistake_is_noticed(
    python: Path, tmp_path: Path, right: str, wrong: str, said: str
) -> None:
    """An unknown key, one of Kubernetes' own, a value of another type, a required key left out."""
    text = RUNTIME.read_text()
    assert right in text
    (tmp_path / "wrong.yaml").write_text(text.replace(right, wrong))
    with pytest.raises(AssertionError, match=said):
        run(python, SCRIPT, tmp_path / "wrong.yaml")


def test_the_service_asks_for_what_the_runtime_offers(
    runtime: dict[str, Any], service: dict[str, Any]
) -> None:
    """Its runtime, format and protocol are those of the ServingRuntime."""
    offered, asked = runtime["spec"], service["spec"]["predictor"]["model"]
    assert asked["runtime"] == runtime["metadata"]["name"]
    formats = [(each["name"], each["version"]) for each in offered["supportedModelFormats"]]
    assert (asked["modelFormat"]["name"], asked["modelFormat"]["version"]) in formats
    assert asked["protocolVersion"] in offered["protocolVersions"]


def test_the_runtime_reads_what_kserve_mounts_and_ends_in_time(
    runtime: dict[str, Any], service: dict[str, Any]
) -> None:
    """Models under /mnt/models, options of `amiss serve`, and a drain within the pod's patience."""
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"  # the name by which KServe finds it
    settings = settings_of({e["name"]: e.get("value", "secret") for e in container["env"]})
    assert settings.models == "/mnt/models"
    assert settings.token == "secret"
    patience = service["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert 0 < settings.drain_delay_s < settings.drain_s < patience
    assert [port["containerPort"] for port in container["ports"]] == [settings.http_port]
