"""The Open Inference Protocol over HTTP, end to end on a free port."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio

from amiss_serving.server import serving
from bundle_factory import GREY, image_scores, normal_rows, table_scores

from .conftest import TOKEN, Served, Slow, free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")
TABLE, IMAGE = "/v2/models/table/infer", "/v2/models/image/infer"
LENGTH = "inference-header-content-length"
FIVE = ["score", "normalized_score", "p_value", "is_anomaly", "threshold"]
X = normal_rows(20, categories=2)
PIXELS = np.random.default_rng(0).integers(0, 255, (3, 1, 8, 8)).astype(np.uint8)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.http) as client:
        yield client


def asked(x: Any, data: Any = None, **fields: Any) -> dict[str, Any]:
    """The JSON of a request for the detector that takes x, its elements nested unless given."""
    name, datatype = ("images", "UINT8") if x.dtype == np.uint8 else ("rows", "FP32")
    tensor = {"name": name, "shape": list(x.shape), "datatype": datatype}
    tensor |= {"data": x.tolist() if data is None else data}
    return {"inputs": [tensor], **fields}


def binary(x: Any, *, size: int | None = None, **fields: Any) -> tuple[bytes, dict[str, str]]:
    """Body and header of a request with raw bytes behind its JSON."""
    message = asked(x, **fields)
    del message["inputs"][0]["data"]
    size = x.nbytes if size is None else size
    message["inputs"][0]["parameters"] = {"binary_data_size": size}
    head = json.dumps(message).encode()
    return head + x.tobytes(), {LENGTH: str(len(head))}


def values(answer: httpx.Response) -> dict[str, Any]:
    """The outputs as arrays, from JSON or from the bytes behind it."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    message, rest = json.loads(answer.content[:length]), answer.content[length:]
    found = {}
    for output in message["outputs"]:
        dtype = {"FP32": "<f4", "BOOL": "?"}[output["datatype"]]
        if size := output.get("parameters", {}).get("binary_data_size"):
            found[output["name"]] = np.frombuffer(rest[:size], dtype).reshape(output["shape"])
            rest = rest[size:]
        else:
            found[output["name"]] = np.array(output["data"], dtype).reshape(output["shape"])
    assert rest == b""
    return found


async def test_json_is_scored_nested_and_flat(client: httpx.AsyncClient) -> None:
    """Both give the formula's scores in JSON, with the id, the version and the five outputs."""
    for path, x, expected in (
        (TABLE, X, table_scores(X)),
        (IMAGE, PIXELS, image_scores(PIXELS)),
    ):
        nested = await client.post(path, json=asked(x, id="mine"))
        assert nested.headers["content-type"] == "application/json"
        assert (nested.json()["id"], nested.json()["model_version"]) == ("mine", "1")
        found = values(nested)
        assert list(found) == FIVE
        np.testing.assert_allclose(found["score"], expected, rtol=1e-5)
        np.testing.assert_array_equal(found["is_anomaly"], found["score"] > found["threshold"])
        flat = await client.post(path, json=asked(x, x.ravel().tolist()))
        assert "id" not in flat.json()
        np.testing.assert_array_equal(values(flat)["score"], found["score"])


async def test_raw_bytes_go_in_and_come_out(client: httpx.AsyncClient) -> None:
    """Bytes behind the JSON are read as they lie; outputs are bytes when they are asked to be."""
    body, headers = binary(PIXELS)
    in_json = await client.post(IMAGE, content=body, headers=headers)
    assert LENGTH not in in_json.headers
    body, headers = binary(PIXELS, parameters={"binary_data_output": True})
    in_bytes = await client.post(IMAGE, content=body, headers=headers)
    assert in_bytes.headers["content-type"] == "application/octet-stream"
    for name, value in values(in_json).items():
        np.testing.assert_array_equal(values(in_bytes)[name], value)
    outputs = [
        {"name": "reconstruction", "parameters": {"binary_data": True}},
        {"name": "score"},
    ]
    mixed = await client.post(IMAGE, json=asked(PIXELS, outputs=outputs))
    assert list(values(mixed)) == ["reconstruction", "score"]
    assert values(mixed)["reconstruction"].shape == (3, 1, 8, 8)
    assert (values(mixed)["reconstruction"] == GREY).all()
    outputs[0]["parameters"] = {"binary_data": False}
    message = asked(PIXELS, outputs=outputs, parameters={"binary_data_output": True})
    mixed = await client.post(IMAGE, json=message)
    head = json.loads(mixed.content[: int(mixed.headers[LENGTH])])
    assert ["data" in output for output in head["outputs"]] == [True, False]


async def test_a_body_without_json_is_one_tensor(client: httpx.AsyncClient) -> None:
    """Its size tells the number of rows; one that is no whole number of rows is refused."""
    answer = await client.post(IMAGE, content=PIXELS.tobytes(), headers={LENGTH: "0"})
    np.testing.assert_allclose(values(answer)["score"], image_scores(PIXELS), rtol=1e-5)
    assert LENGTH in answer.headers
    for size in (0, 63, 65):
        answer = await client.post(IMAGE, content=b"x" * size, headers={LENGTH: "0"})
        assert answer.status_code == 400
        assert f"64 bytes for each row of 'images' UINT8 [-1, 1, 8, 8], got {size}" in answer.text


async def test_null_is_a_missing_number(client: httpx.AsyncClient) -> None:
    """JSON has no NaN: null in a column that imputes is scored as one."""
    x = X[:1].copy()
    x[0, 0] = np.nan
    answer = await client.post(TABLE, json=asked(x, [None, *x[0, 1:].tolist()]))
    np.testing.assert_allclose(values(answer)["score"], table_scores(x), rtol=1e-6)


ONE = X[:1]
GOOD = asked(ONE)["inputs"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{", "expected the JSON of an inference request"),
        ("[" * 100_000, "expected the JSON of an inference request"),
        ({}, "missing required field `inputs`"),
        ({"inputs": []}, "expected one input 'rows', got none"),
        ({"inputs": GOOD * 2}, "got ['rows', 'rows']"),
        ({"inputs": [{**GOOD[0], "name": "x"}]}, "expected one input 'rows' FP32 [-1, 4]"),
        ({"inputs": [{**GOOD[0], "datatype": "FP64"}]}, "got 'rows' FP64 [1, 4]"),
        ({"inputs": [{**GOOD[0], "shape": [4]}]}, "got 'rows' FP32 [4]"),
        ({"inputs": [{**GOOD[0], "shape": [2, 4]}]}, "shape [2, 4], got [1, 4]"),
        ({"inputs": [{**GOOD[0], "data": [1]}]}, "holds 4 elements, got 1"),
        ({"inputs": [{**GOOD[0], "data": ["a"] * 4}]}, "Expected `float | null`, got `str`"),
        ({"inputs": [{**GOOD[0], "data": [1e39, 1, 2, 2]}]}, "finite"),
        ({"inputs": GOOD, "outputs": [{"name": "x"}]}, "no output 'x'"),
        ({"inputs": GOOD, "parameters": {"sequence_id": 1}}, "'sequence_id' is not supported"),
        ({"inputs": GOOD, "parameters": {"timeout": -1}}, "microseconds"),
        (
            {"inputs": GOOD, "outputs": [{"name": "score", "parameters": {"classification": 2}}]},
            "'classification' is not supported",
        ),
        (
            {"inputs": [{**GOOD[0], "parameters": {"shared_memory_region": "mine"}}]},
            "'shared_memory_region' is not supported",
        ),
        ({"inputs": [{**GOOD[0], "parameters": {"binary_data_size": 16}}]}, "got both"),
    ],
)
async def test_bad_requests_say_what_was_expected(
    client: httpx.AsyncClient, message: Any, words: str
) -> None:
    """Each is 400, with the error alone in its JSON and the request id in its header."""
    content = message if isinstance(message, str) else json.dumps(message)
    answer = await client.post(TABLE, content=content, headers={"x-request-id": "mine"})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("size", "length", "words"),
    [
        (15, None, "expected 15 bytes behind the JSON, got 16"),
        (17, None, "expected 17 bytes behind the JSON, got 16"),
        (None, "99999", "at most the body's"),
        (None, "-1", "at most the body's"),
        (None, "1e2", "at most the body's"),
        (None, "9" * 5000, "at most the body's"),
        (None, "5", "expected the JSON"),
    ],
)
async def test_lengths_that_do_not_fit_are_refused(
    client: httpx.AsyncClient, size: int | None, length: str | None, words: str
) -> None:
    """The bytes must be as many as announced, the JSON as long as its header says."""
    body, headers = binary(ONE, size=size)
    answer = await client.post(TABLE, content=body, headers={LENGTH: length or headers[LENGTH]})
    assert answer.status_code == 400
    assert words in answer.json()["error"]


async def test_errors_have_their_status(client: httpx.AsyncClient) -> None:
    """Unknown names and versions 404, too many rows 413, a wrong verb 405, compressed bytes 400."""
    for method, path, status in (
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/table/versions/9/infer", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/broken/ready", 404),
        ("GET", "/v2/models/none/stats", 404),
        ("GET", "/v2/nowhere", 404),
        ("GET", "/v2/models/table/infer", 405),
    ):
        answer = await client.request(method, path, json=asked(ONE))
        assert answer.status_code == status, path
        assert list(answer.json()) == ["error"]
    large = await client.post(TABLE, json=asked(np.zeros((51, 4), np.float32)))
    assert large.status_code == 413
    packed = await client.post(TABLE, content=b"x", headers={"content-encoding": "gzip"})
    assert "Content-Encoding 'gzip'" in packed.json()["error"]


async def test_a_version_is_asked_for_in_the_path(client: httpx.AsyncClient) -> None:
    """The versioned twins of infer, metadata, ready, config and stats answer that version."""
    path = "/v2/models/table/versions/1"
    assert (await client.post(f"{path}/infer", json=asked(ONE))).json()["model_version"] == "1"
    assert (await client.get(path)).json()["name"] == "table"
    assert (await client.get(f"{path}/ready")).json() == {"name": "table", "ready": True}
    assert (await client.get(f"{path}/config")).json()["max_batch_size"] == 50
    assert (await client.get(f"{path}/stats")).json()["model_stats"][0]["version"] == "1"


async def test_the_server_and_its_detectors_describe_themselves(client: httpx.AsyncClient) -> None:
    """The documents of the protocol, their shapes with -1 for the rows."""
    server = (await client.get("/v2")).json()
    assert (server["name"], "model_repository" in server["extensions"]) == ("amiss", True)
    metadata = (await client.get("/v2/models/image")).json()
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}]
    assert (metadata["versions"], metadata["platform"]) == (["1"], "onnx_onnxv1")
    config = (await client.get("/v2/models/image/config")).json()
    assert config["input"] == [{"name": "images", "data_type": "TYPE_UINT8", "dims": [1, 8, 8]}]


async def test_health_is_an_empty_answer(client: httpx.AsyncClient) -> None:
    """Live and ready are 200 without a body."""
    for path in ("/v2/health/live", "/v2/health/ready"):
        answer = await client.get(path)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_the_repository_is_listed_and_closed(client: httpx.AsyncClient) -> None:
    """The index says why one does not serve; load and unload are 403 and name the option."""
    index = (await client.post("/v2/repository/index")).json()
    states = {entry["name"]: entry["state"] for entry in index}
    assert states == {"broken": "UNAVAILABLE", "image": "READY", "table": "READY"}
    ready = (await client.post("/v2/repository/index", json={"ready": True})).json()
    assert [entry["name"] for entry in ready] == ["image", "table"]
    for action in ("load", "unload"):
        answer = await client.post(f"/v2/repository/models/table/{action}")
        assert answer.status_code == 403
        assert "--repository-mode explicit" in answer.json()["error"]
    load = await client.post(
        "/v2/repository/models/table/load", json={"parameters": {"config": ""}}
    )
    assert (load.status_code, "'config'" in load.json()["error"]) == (400, True)
    assert (await client.post("/v2/repository/index", content="[")).status_code == 400


async def test_statistics_count_what_was_asked(client: httpx.AsyncClient) -> None:
    """A good request is a success with its rows, a bad one a failure; all are listed together."""

    async def now() -> Any:
        (statistics,) = (await client.get("/v2/models/image/stats")).json()["model_stats"]
        return statistics

    before = await now()
    await client.post(IMAGE, json=asked(PIXELS))
    await client.post(IMAGE, json=asked(PIXELS, [1]))
    after = await now()
    gained = {
        key: after["inference_stats"][key]["count"] - before["inference_stats"][key]["count"]
        for key in after["inference_stats"]
    }
    assert (gained["success"], gained["fail"], gained["compute_infer"]) == (1, 1, 1)
    assert after["inference_count"] - before["inference_count"] == 3
    everything = (await client.get("/v2/models/stats")).json()["model_stats"]
    assert [statistics["name"] for statistics in everything] == ["image", "table"]


async def test_methods_have_their_names_in_the_metrics(
    client: httpx.AsyncClient, served: Served
) -> None:
    """Inference is counted as ModelInfer of its detector."""
    await client.post(TABLE, json=asked(ONE))
    text = (await client.get(served.metrics)).text
    pattern = r'amiss_requests_total{code="200",method="ModelInfer",model="table",protocol="http"'
    assert re.search(pattern, text)


async def test_probes_are_open_and_the_rest_is_not(guarded: Served) -> None:
    """Without the token live and ready answer, everything else is 401 with the error alone."""
    async with httpx.AsyncClient(base_url=guarded.http) as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200
        for path in ("/v2", "/v2/models/table/ready", "/v2/models/stats", "/v2/nowhere"):
            refused = await client.get(path)
            assert (refused.status_code, list(refused.json())) == (401, ["error"])
        token = {"authorization": f"Bearer {TOKEN}"}
        assert (await client.post(TABLE, json=asked(ONE), headers=token)).status_code == 200


@pytest.mark.asyncio(loop_scope="function")
async def test_an_empty_service_is_live_and_not_ready(tmp_path: Any) -> None:
    """Ready is 503 and says why."""
    async with (
        serving(free_ports(tmp_path)) as addresses,
        httpx.AsyncClient(base_url=f"http://{addresses.http}") as client,
    ):
        assert (await client.get("/v2/health/live")).status_code == 200
        ready = await client.get("/v2/health/ready")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert "no detector is loaded" in ready.json()["error"]


@pytest.mark.asyncio(loop_scope="function")
async def test_a_timeout_and_a_caller_who_hangs_up_end_their_requests(slow: Slow) -> None:
    """The parameter's microseconds are the deadline: 504; rows of who left are not computed."""
    slow.runtime.free.clear()
    x = np.zeros((1, 3), np.float32)
    async with httpx.AsyncClient(base_url=slow.http) as client:
        busy = asyncio.create_task(client.post(TABLE, json=asked(x)))
        while not slow.runtime.entered.is_set():
            await asyncio.sleep(0.005)
        late = await client.post(TABLE, json=asked(x, parameters={"timeout": 50_000}))
        assert late.status_code == 504
        with pytest.raises(httpx.ReadTimeout):
            await client.post(TABLE, json=asked(x), timeout=0.1)
        await asyncio.sleep(0.1)
        slow.runtime.free.set()
        assert (await busy).status_code == 200
    assert [n for n, _ in slow.runtime.calls] == [1]
