"""NVIDIA's own clients, unmodified, in a venv of their own: they refuse our protobuf."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from amiss_serving.server import serving
from bundle_factory import image_scores, table_scores, write_image_bundle, write_table_bundle

from .conftest import Served, free_ports
from .tritonclient_script import PIXELS, ROWS

pytestmark = pytest.mark.asyncio(loop_scope="module")
REQUIREMENT = "tritonclient[grpc,http]==2.73.0"
SCRIPT = Path(__file__).with_name("tritonclient_script.py")
OUTPUTS = ["score", "normalized_score", "p_value", "is_anomaly", "threshold"]


@pytest.fixture(scope="session")
def tritonclient(request: pytest.FixtureRequest) -> Path:
    """The Python of a venv with the clients, made once and kept in pytest's cache."""
    assert request.config.cache
    major, minor = sys.version_info[:2]
    folder = request.config.cache.mkdir(f"tritonclient-2.73.0-py{major}.{minor}")
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.exists():
        return python
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(pip, check=True, capture_output=True, timeout=240)
    except (subprocess.SubprocessError, OSError) as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must be able to install {REQUIREMENT}: {error}")
        pytest.skip(f"{REQUIREMENT} cannot be installed here: {error}")
    ready.touch()
    return python


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def explicit(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """An open service with table@1 and image@1 that loads and unloads when asked to."""
    models = tmp_path_factory.mktemp("models")
    write_table_bundle(models)
    write_image_bundle(models)
    async with serving(free_ports(models, repository_mode="explicit")) as addresses:
        yield Served(addresses, models)


@pytest_asyncio.fixture(
    params=["http", "http.aio", "grpc", "grpc.aio"], scope="module", loop_scope="module"
)
async def seen(request: pytest.FixtureRequest, tritonclient: Path, explicit: Served) -> Any:
    """What one of the four clients saw."""
    over_http = request.param.startswith("http")
    address = explicit.addresses.http if over_http else explicit.addresses.grpc
    process = await asyncio.create_subprocess_exec(
        *(str(tritonclient), str(SCRIPT), request.param, address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_health_is_told_in_the_clients_own_words(seen: Any) -> None:
    """Server and served detector are ready, an absent one is not."""
    assert (seen["live"], seen["ready"], seen["model_ready"]) == (True, True, True)
    assert seen["absent_ready"] is False


async def test_metadata_says_what_goes_in_and_what_comes_out(seen: Any) -> None:
    """Platform, versions, the one input and the six outputs; extensions are those there are."""
    assert seen["server"]["name"] == "amiss"
    assert "binary_tensor_data" in seen["server"]["extensions"]
    metadata = seen["metadata"]
    assert (metadata["platform"], metadata["versions"]) == ("onnx_onnxv1", ["1"])
    (taken,) = metadata["inputs"]
    assert (taken["name"], taken["datatype"]) == ("images", "UINT8")
    assert list(map(int, taken["shape"])) == [-1, 1, 8, 8]
    assert [output["name"] for output in metadata["outputs"]] == [*OUTPUTS, "reconstruction"]
    config = seen["config"].get("config", seen["config"])
    assert config["max_batch_size"] == 8192
    assert config["input"][0]["data_type"] == "TYPE_FP32"


async def test_scores_are_the_formulas(seen: Any) -> None:
    """Images and rows come back in order, the id with them, the five outputs in theirs."""
    images, rows = seen["images"], seen["rows"]
    assert (images["id"], images["version"]) == ("mine", "1")
    assert list(images["outputs"]) == OUTPUTS
    expected = image_scores(np.array(PIXELS, np.uint8))
    np.testing.assert_allclose(images["outputs"]["score"], expected, rtol=1e-5)
    assert images["outputs"]["is_anomaly"] == [False, True, True]
    assert len(images["outputs"]["threshold"]) == 1
    expected = table_scores(np.array(ROWS, np.float32))
    np.testing.assert_allclose(rows["outputs"]["score"], expected, rtol=1e-6)


async def test_outputs_come_as_asked_for(seen: Any) -> None:
    """The two that were named, in that order, the reconstruction in the shape of the input."""
    outputs = seen["reconstruction"]["outputs"]
    assert list(outputs) == ["reconstruction", "score"]
    assert outputs["reconstruction"] == [[0, 1, 2], [0, 1, 2]]


async def test_errors_reach_the_caller_in_words(seen: Any) -> None:
    """Wrong type and absent detector: the status and what was expected."""
    assert "'rows' FP32 [-1, 3]" in seen["wrong_type"]
    assert seen["wrong_type"].split()[0] in ("400", "StatusCode.INVALID_ARGUMENT")
    assert "no detector 'absent'; being served: image, table" in seen["absent"]
    assert seen["absent"].split()[0] in ("404", "StatusCode.NOT_FOUND")


async def test_the_repository_lists_loads_and_unloads(seen: Any) -> None:
    """The index holds both; unloaded is not ready, loaded is again, an absent one is an error."""
    index = seen["index"]["models"] if "models" in seen["index"] else seen["index"]
    assert [(m["name"], m["version"], m["state"]) for m in index] == [
        ("image", "1", "READY"),
        ("table", "1", "READY"),
    ]
    assert (seen["unloaded_ready"], seen["loaded_ready"]) == (False, True)
    assert seen["load_absent"].split()[0] in ("404", "StatusCode.NOT_FOUND")


async def test_statistics_count_requests_rows_and_runs(seen: Any) -> None:
    """Each client's two requests of two rows at least, and times for what took some."""
    (statistics,) = seen["statistics"]["model_stats"]
    assert int(statistics["inference_count"]) >= 4
    assert int(statistics["execution_count"]) >= 2
    assert int(statistics["inference_stats"]["success"]["count"]) >= 2
    assert int(statistics["inference_stats"]["fail"]["count"]) >= 1
    for phase in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert int(statistics["inference_stats"][phase]["ns"]) > 0


async def test_a_stream_answers_each_request_in_order(seen: Any) -> None:
    """Two scores and one error, which does not end the stream. Streams are gRPC's alone."""
    if "stream" not in seen:
        return
    first, second, third = seen["stream"]
    expected = table_scores(np.array(ROWS, np.float32))
    np.testing.assert_allclose([*first, *second], expected, rtol=1e-6)
    assert "no detector 'absent'" in third
