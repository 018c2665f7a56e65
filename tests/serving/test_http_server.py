"""The HTTP door, end to end on a free port."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from bundle_factory import image_scores, normal_rows, table_scores

from .conftest import POISON, Served, Slow

pytestmark = pytest.mark.asyncio(loop_scope="module")
SCORE = "/v1/detectors/table:score"
GOOD = {"x0": 0, "x1": 1, "x2": 2, "colour": "red"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.http) as client:
        yield client


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), value).save(stream, "PNG")
    return stream.getvalue()


async def test_records_are_scored_by_column_name(client: httpx.AsyncClient) -> None:
    """Scores equal the formula in any order of columns; unseen and missing are counted."""
    records = [GOOD, {"colour": "blue", "x2": 9.5, "x0": None}]
    answer = (await client.post(SCORE, json={"records": records})).json()
    x = np.array([[0, 1, 2, 2], [np.nan, np.nan, 9.5, 0]], np.float32)
    scores = [result["score"] for result in answer["results"]]
    np.testing.assert_allclose(scores, table_scores(x), rtol=1e-6)
    assert [r["is_anomaly"] for r in answer["results"]] == [s > answer["threshold"] for s in scores]
    assert (answer["unseen_categories"], answer["missing_values"]) == (1, 2)
    assert (answer["detector"], answer["version"], answer["alarm_rate"]) == ("table", 1, 0.05)


async def test_rows_are_scored_in_order(client: httpx.AsyncClient) -> None:
    """Fifty raw rows come back as fifty results, each its own."""
    x = normal_rows(50, categories=2)
    answer = (await client.post(SCORE, json={"rows": x.tolist()})).json()
    scores = [result["score"] for result in answer["results"]]
    np.testing.assert_allclose(scores, table_scores(x), rtol=1e-6)


async def test_pictures_are_scored_in_order(client: httpx.AsyncClient) -> None:
    """Repeated multipart files come back in order, each with the score of its pixels."""
    values = [128, 0, 255]
    files = [("images", (f"{v}.png", png(v))) for v in values]
    answer = (await client.post("/v1/detectors/image:score", files=files)).json()
    pixels = np.array(values, np.uint8)[:, None, None, None]
    scores = [result["score"] for result in answer["results"]]
    np.testing.assert_allclose(scores, image_scores(pixels), rtol=1e-5)
    assert [result["is_anomaly"] for result in answer["results"]] == [False, True, True]


async def test_the_reconstruction_comes_when_asked_for(client: httpx.AsyncClient) -> None:
    """With ?reconstruction=true each result holds it, shaped like the row; else none does."""
    asked = await client.post(SCORE + "?reconstruction=true", json={"records": [GOOD]})
    assert asked.json()["results"][0]["reconstruction"] == [0, 1, 2, 3]
    plain = await client.post(SCORE, json={"records": [GOOD]})
    assert "reconstruction" not in plain.json()["results"][0]
    picture = await client.post(
        "/v1/detectors/image:score?reconstruction=true", files={"images": png(0)}
    )
    assert np.shape(picture.json()["results"][0]["reconstruction"]) == (1, 8, 8)


async def test_a_version_can_be_asked_for(client: httpx.AsyncClient) -> None:
    """The versioned path answers that version; an absent one is 404 and names what there is."""
    path = "/v1/detectors/table/versions/{}:score"
    there = await client.post(path.format(1), json={"records": [GOOD]})
    assert there.json()["version"] == 1
    absent = await client.post(path.format(2), json={"records": [GOOD]})
    assert absent.status_code == 404
    assert "versions [1]" in absent.json()["error"]


async def test_detectors_are_listed_with_what_was_refused(client: httpx.AsyncClient) -> None:
    """The list holds both detectors and the broken bundle with its reason; one can be got alone."""
    listed = (await client.get("/v1/detectors")).json()
    assert [d["name"] for d in listed["detectors"]] == ["image", "table"]
    (refused,) = listed["refused_bundles"]
    assert (refused["name"], refused["version"]) == ("broken", 1)
    assert "sha256" in refused["reason"]
    table = (await client.get("/v1/detectors/table")).json()
    assert table == listed["detectors"][1]
    assert [c["name"] for c in table["table"]["columns"]] == ["x0", "x1", "x2", "colour"]
    assert "image" not in table


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ('{"records": [{"x0": NaN}]}', "expected JSON"),
        ('{"records": [{"x0": Infinity}]}', "expected JSON"),
        ('{"records": [{"x0": 1e999}]}', "out of range"),
        ('{"records": [{"x0": 1e39}]}', "finite"),
        ('{"rows": [[1e39, 1, 2, 2]]}', "finite"),
        ('{"rows": [["1", 1, 2, 2]]}', r"\$.rows\[0\]\[0\]"),
        ('{"rows": [[1]]}', "expected 4 values, got 1"),
        ('{"rows": [], "records": []}', "exactly one of"),
        ("{}", "exactly one of"),
        ('{"instances": []}', "unknown field `instances`"),
        ('{"records": [{"x9": 1}]}', "unknown column"),
        ('{"records": [{"x0": "a"}]}', "row 0: expected a number, got 'a'"),
        ('{"records": []}', "at least one"),
    ],
)
async def test_bad_json_is_400_with_the_reason(
    client: httpx.AsyncClient, body: str, message: str
) -> None:
    """Malformed, not-a-number, infinite or misnamed input is 400 and says what was expected."""
    answer = await client.post(SCORE, content=body)
    assert answer.status_code == 400
    assert re.search(message, answer.json()["error"])


@pytest.mark.parametrize(
    "files",
    [
        {"images": b"no picture"},
        {"pictures": b""},
        [("images", png(1)), ("other", png(1))],
        [("images", (None, "text"))],
    ],
)
async def test_bad_multipart_is_400(client: httpx.AsyncClient, files: Any) -> None:
    """Files that are no pictures, or in another field, are 400 with the field to use."""
    answer = await client.post("/v1/detectors/image:score", files=files)
    assert answer.status_code == 400
    assert "image" in answer.json()["error"]


async def test_broken_multipart_is_400(client: httpx.AsyncClient) -> None:
    """A multipart body without a boundary, or cut off, is the caller's error."""
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = await client.post(
            "/v1/detectors/image:score", content=b"--y\r\nrubbish", headers={"content-type": kind}
        )
        assert answer.status_code == 400


async def test_a_body_over_the_limit_is_413(client: httpx.AsyncClient) -> None:
    """Over 200 kB is refused, whether the length was announced or the body comes in chunks."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 10_000

    announced = await client.post(SCORE, content=b" " * 200_001)
    streamed = await client.post(SCORE, content=chunks())
    assert (announced.status_code, streamed.status_code) == (413, 413)


async def test_too_many_rows_or_pictures_are_413(client: httpx.AsyncClient) -> None:
    """Over fifty rows, records or pictures are refused as too large."""
    records = await client.post(SCORE, json={"records": [{}] * 51})
    assert records.status_code == 413
    files = [("images", (f"{i}.png", b"")) for i in range(51)]
    pictures = await client.post("/v1/detectors/image:score", files=files)
    assert pictures.status_code == 413


async def test_unknown_names_paths_and_verbs_answer_as_json(client: httpx.AsyncClient) -> None:
    """404 and 405 carry an error and the request id like every other error."""
    for method, path, status in (
        ("POST", "/v1/detectors/none:score", 404),
        ("GET", "/v1/detectors/none", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/detectors", 405),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert answer.json()["error"]


async def test_a_sane_request_id_is_kept_and_another_replaced(client: httpx.AsyncClient) -> None:
    """The caller's id comes back; one with odd characters or of odd length does not."""
    for given in ("abc-123", "x" * 128):
        answer = await client.get("/readyz", headers={"x-request-id": given})
        assert answer.headers["x-request-id"] == given
    for given in ("", "a b", "<script>", "x" * 129):
        answer = await client.get("/readyz", headers={"x-request-id": given})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_the_docs_fetch_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    """The page names every path and no other host, and forbids scripts."""
    page = await client.get("/docs")
    document = (await client.get("/openapi.json")).json()
    for path in document["paths"]:
        assert path in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_the_openapi_document_is_whole(client: httpx.AsyncClient) -> None:
    """Every reference in it leads to a schema; scoring takes JSON and multipart."""
    document = (await client.get("/openapi.json")).json()
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(document)):
        assert name in document["components"]["schemas"]
    body = document["paths"]["/v1/detectors/{name}:score"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert {"name", "reconstruction"} == {
        p["name"] for p in document["paths"]["/v1/detectors/{name}:score"]["post"]["parameters"]
    }


@pytest.mark.asyncio(loop_scope="function")
async def test_a_caller_who_hangs_up_is_not_waited_for(slow: Slow) -> None:
    """A request whose caller left while it queued never reaches the model."""
    slow.runtime.free.clear()
    async with httpx.AsyncClient(base_url=slow.http) as client:
        busy = asyncio.create_task(client.post(SCORE, json={"rows": [[0, 0, 0]]}))
        while not slow.runtime.entered.is_set():
            await asyncio.sleep(0.005)
        with pytest.raises(httpx.ReadTimeout):
            await client.post(SCORE, json={"rows": [[1, 1, 1], [2, 2, 2]]}, timeout=0.2)
        await asyncio.sleep(0.1)
        slow.runtime.free.set()
        assert (await busy).status_code == 200
        assert (await client.post(SCORE, json={"rows": [[3, 3, 3]]})).status_code == 200
    assert [n for n, _ in slow.runtime.calls] == [1, 1]


@pytest.mark.asyncio(loop_scope="function")
async def test_a_full_queue_is_429_and_a_broken_model_500(slow: Slow) -> None:
    """A full queue says when to retry; an unexpected error shows the id and none of its text."""
    async with httpx.AsyncClient(base_url=slow.http) as client:
        broken = await client.post(SCORE, json={"rows": [[POISON, 0, 0]]})
        assert broken.status_code == 500
        assert broken.json()["request_id"] in broken.json()["error"]
        assert "poison" not in broken.text
        slow.runtime.entered.clear()
        slow.runtime.free.clear()
        busy = asyncio.create_task(client.post(SCORE, json={"rows": [[0, 0, 0]]}))
        while not slow.runtime.entered.is_set():
            await asyncio.sleep(0.005)
        waiting = asyncio.create_task(client.post(SCORE, json={"rows": [[0, 0, 0]] * 5}))
        await asyncio.sleep(0.1)
        full = await client.post(SCORE, json={"rows": [[0, 0, 0]] * 5})
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        slow.runtime.free.set()
        assert [(await busy).status_code, (await waiting).status_code] == [200, 200]


async def test_the_content_type_is_read_in_any_case(client: httpx.AsyncClient) -> None:
    """`Multipart/Form-Data` is multipart: media types know no case."""
    part = b'--B\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    answer = await client.post(
        "/v1/detectors/image:score",
        content=part + png(128) + b"\r\n--B--\r\n",
        headers={"content-type": "Multipart/Form-Data; boundary=B"},
    )
    assert answer.status_code == 200


async def test_a_wrong_verb_names_the_right_one(client: httpx.AsyncClient) -> None:
    """405 carries the header Allow."""
    assert (await client.delete("/v1/detectors")).headers["allow"] == "GET"
