"""Both clients against a fake service: what is sent, in which pieces, and how answers join."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amiss.v1 import scoring_pb2 as pb
from amiss_client import (
    AmissClientError,
    AsyncClient,
    Client,
    ColumnSpec,
    DeadlineExceeded,
    ImageSpec,
    InvalidInput,
    ServerError,
    TableSpec,
)
from client.fake_service import Ask, FakeService


def test_table_travels_as_raw_numbers_and_texts(service: FakeService, ask: Ask) -> None:
    """Numbers are sent as little-endian float64 bytes, categories as texts, under their names."""
    ask("score_table", "table", {"size": [1, None, 12.5], "colour": ["red", None, "blue"]})
    (request,) = service.requests
    size, colour = request.columns.columns
    assert (size.name, colour.name, request.detector) == ("size", "colour", "table")
    assert size.float64_data == np.array([1, np.nan, 12.5], dtype="<f8").tobytes()
    assert list(colour.texts.values) == ["red", "", "blue"]


def test_scores_are_typed(ask: Ask) -> None:
    """Every array is (n,) of its type, rows iterate as plain numbers, the repr counts anomalies."""
    scores = ask("score_table", "table", {"size": [0.0, 10.0, 12.5]})
    assert [scores.score.dtype, scores.is_anomaly.dtype] == [np.float32, np.bool_]
    assert len(scores) == 3
    rows = list(scores)
    assert rows[2] == (12.5, 0.625, pytest.approx(1 / 13.5), True)
    assert [type(value) for value in rows[2]] == [float, float, float, bool]
    assert (scores.detector, scores.version, scores.threshold) == ("table", 3, 10.0)
    assert "table@3: 3 row(s), 1 above threshold 10" in repr(scores)
    assert "1 unseen categories, 2 missing values" in repr(scores)


def test_tensor_travels_with_its_shape(service: FakeService, ask: Ask) -> None:
    """A strided uint8 batch arrives row-major with its shape, and scores as if it were copied."""
    images = np.arange(2 * 1 * 4 * 4, dtype=np.uint8).reshape(2, 1, 4, 4)[:, :, ::2, ::2]
    scores = ask("score_tensor", "image", images)
    tensor = service.requests[0].tensor
    assert list(tensor.shape) == [2, 1, 2, 2]
    assert tensor.data == np.ascontiguousarray(images).tobytes()
    assert scores.score.tolist() == [0, 16]


def test_images_are_bytes_or_paths(service: FakeService, ask: Ask, tmp_path: Path) -> None:
    """Bytes, a Path and the text of a path send the same contents."""
    file = tmp_path / "a.png"
    file.write_bytes(b"\x07abc")
    ask("score_images", "image", [b"\x07abc", file, str(file)])
    assert list(service.requests[0].images.contents) == [b"\x07abc"] * 3


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("score_images", b"\x89PNG"),
        ("score_images", "a.png"),
        ("score_images", []),
        ("score_images", ["no such file.png"]),
        ("score_images", [np.zeros((2, 2))]),
        ("score_images", iter([b"x"])),
        ("score_tensor", np.zeros((3, 2))),
        ("score_tensor", np.zeros(3, dtype=np.float32)),
        ("score_tensor", np.zeros((0, 2), dtype=np.float32)),
        ("score_table", {}),
        ("score_table", {"size": []}),
        ("score_table", {"colour": ["\ud800"]}),
        ("score_table", {"size": [1, 2], "colour": ["red"]}),
    ],
)
def test_unusable_input_is_never_sent(
    service: FakeService, ask: Ask, method: str, argument: Any
) -> None:
    """Input that no detector takes raises InvalidInput before a request leaves."""
    with pytest.raises(InvalidInput, match=r"expected|equal length|cannot read"):
        ask(method, "any", argument)
    assert service.requests == []


def test_a_large_table_is_cut_and_joined_in_order(service: FakeService, ask: Ask) -> None:
    """25 rows at 4 a request make 7 requests, and the slow first answers still come first."""
    service.delay_s = 0.1  # of the piece whose first score is 0
    values = np.concatenate([np.arange(12), np.arange(13)]).astype(float)
    scores = ask(
        "score_table",
        "table",
        {"size": values},
        include_reconstruction=True,
        options={"max_rows_per_request": 4},
    )
    assert len(service.requests) == 7
    assert scores.score.tolist() == values.tolist()
    assert scores.reconstruction.tolist() == [[v, v] for v in values]
    assert (scores.unseen_categories, scores.missing_values) == (7, 14)


def test_images_are_cut_by_number(service: FakeService, ask: Ask) -> None:
    """40 pictures go out as 16 + 16 + 8, since a small file may decode to a large picture."""
    scores = ask("score_images", "image", [bytes([i]) for i in range(40)])
    assert sorted(len(r.images.contents) for r in service.requests) == [8, 16, 16]
    assert scores.score.tolist() == list(range(40))


def test_images_and_tensors_are_cut_by_bytes(service: FakeService, ask: Ask) -> None:
    """No request of several rows holds more than 8 MiB."""
    big = bytes(3 << 20)
    ask("score_images", "image", [big] * 5)
    assert sorted(len(r.images.contents) for r in service.requests) == [1, 2, 2]
    service.requests.clear()
    ask("score_tensor", "image", np.zeros((5, 3, 1024, 1024), dtype=np.uint8))
    assert sorted(r.tensor.shape[0] for r in service.requests) == [1, 2, 2]


def test_one_version_answers_a_cut_table(service: FakeService, ask: Ask) -> None:
    """The version that answers the first piece is asked for by number for all the others."""
    service.version = 5
    scores = ask(
        "score_table",
        "table",
        {"size": np.arange(6.0)},
        version="stable",
        options={"max_rows_per_request": 2},
    )
    assert sorted(r.version for r in service.requests) == ["5", "5", "stable"]
    assert scores.version == 5


def test_every_call_has_a_deadline(service: FakeService, ask: Ask) -> None:
    """The default deadline and a call's own reach the service, for each of the three methods."""
    ask("score_table", "table", {"size": [1.0]}, options={"timeout_s": 7.0})
    ask("list_detectors", options={"timeout_s": 7.0})
    ask("get_detector", "table", timeout_s=3.0)
    assert 6 < service.time_remaining_s[0] <= 7.1
    assert 6 < service.time_remaining_s[1] <= 7.1
    assert 2 < service.time_remaining_s[2] <= 3.1


def test_a_slow_answer_exceeds_the_deadline(service: FakeService, ask: Ask) -> None:
    """A call ends after timeout_s, saying which it was, with the request id that was sent."""
    service.delay_s = 1.0
    with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s") as caught:
        ask("score_table", "table", {"size": [0.0]}, timeout_s=0.2)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert caught.value.request_id == service.metadata[0]["x-request-id"]


def test_token_comes_from_the_argument_or_the_environment(
    service: FakeService, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An explicit token wins over AMISS_TOKEN, an empty one sends none."""
    ask("list_detectors")
    monkeypatch.setenv("AMISS_TOKEN", "from-env")
    ask("list_detectors")
    ask("list_detectors", options={"token": "mine"})
    ask("list_detectors", options={"token": ""})
    sent = [metadata.get("authorization") for metadata in service.metadata]
    assert sent == [None, "Bearer from-env", "Bearer mine", None]


def test_request_ids_differ(service: FakeService, ask: Ask) -> None:
    """Every request carries an id of its own."""
    ask("score_table", "table", {"size": np.arange(6.0)}, options={"max_rows_per_request": 2})
    assert len({metadata["x-request-id"] for metadata in service.metadata}) == 3


def test_detectors_are_described(ask: Ask) -> None:
    """A table's and an image's description arrive whole, refused bundles with their reason."""
    table, image = ask("list_detectors")
    assert table == ask("get_detector", "table")
    assert (table.name, table.version, table.kind, table.readout) == ("table", 3, "vae", "elbo")
    assert (table.labels, table.calibration_rows, table.created) == (("stable",), 200, None)
    assert table.input == TableSpec(
        columns=(
            ColumnSpec("size", "number", "mm", (), accepts_missing=True),
            ColumnSpec("colour", "category", "", ("red",), accepts_missing=False),
        ),
        source_columns=("size", "colour", "label"),
        label_column="label",
    )
    assert image.input == ImageSpec(channels=1, height=2, width=2)
    (refused,) = ask("list_refused_bundles")
    assert (refused.name, refused.version, refused.reason) == ("bad", 2, "model.onnx is missing")


def test_an_answer_short_of_verdicts_is_an_error(service: FakeService, ask: Ask) -> None:
    """A response with fewer verdicts than rows raises instead of shifting rows."""
    service.drop_a_verdict = True
    with pytest.raises(ServerError, match="expected 2 verdicts"):
        ask("score_table", "table", {"size": [1.0, 2.0]})


def test_client_reuses_one_channel(service: FakeService) -> None:
    """Twenty calls and a cut table come over one connection."""
    with Client(service.address, max_rows_per_request=2) as client:
        for _ in range(20):
            client.list_detectors()
        client.score_table("table", {"size": np.arange(10.0)})
    assert len(service.peers) == 1


async def test_async_client_reuses_one_channel(service: FakeService) -> None:
    """Twenty calls at once come over one connection."""
    async with AsyncClient(service.address) as client:
        calls = (client.score_table("table", {"size": [float(i)]}) for i in range(20))
        answers = await asyncio.gather(*calls)
    assert [answer.score.tolist() for answer in answers] == [[i] for i in range(20)]
    assert len(service.peers) == 1


def test_async_client_may_be_made_outside_a_loop(service: FakeService) -> None:
    """A client made at module level joins the loop of its first call; closing unused is fine."""
    client = AsyncClient(service.address)

    async def go() -> int:
        async with client:
            return len(await client.list_detectors())

    assert asyncio.run(go()) == 2
    asyncio.run(AsyncClient(service.address).close())


def test_reconstruction_keeps_its_shape(service: FakeService, ask: Ask) -> None:
    """The reconstruction comes back as a float32 array that may be written to; None by default."""
    rows = np.ones((3, 2), dtype=np.float32)
    assert ask("score_tensor", "table", rows).reconstruction is None
    scores = ask("score_tensor", "table", rows, include_reconstruction=True)
    assert service.requests[-1].include_reconstruction
    scores.reconstruction[0, 0] = 7
    assert scores.reconstruction.tolist() == [[7, 1], [1, 1], [1, 1]]


def test_wire_request_needs_no_client_side_knowledge_of_columns(
    service: FakeService, ask: Ask
) -> None:
    """Columns no detector reads travel too: the service ignores them."""
    ask("score_table", "table", [{"size": 1.0, "note": "x"}, {"size": 2.0}])
    names = [column.name for column in service.requests[0].columns.columns]
    assert names == ["size", "note"]
    assert isinstance(service.requests[0], pb.ScoreRequest)


@pytest.mark.parametrize("token", ["mine\n", "two words", "caf\u00e9"])
def test_a_token_that_cannot_travel_is_refused_unseen(
    service: FakeService, ask: Ask, token: str
) -> None:
    """A token with a line end, a blank or an accent raises InvalidInput, which does not show it."""
    with pytest.raises(InvalidInput, match="printable ASCII") as caught:
        ask("list_detectors", options={"token": token})
    assert token.strip() not in str(caught.value)
    assert service.requests == []


def test_a_closed_client_says_so(service: FakeService) -> None:
    """After close every call of either client raises the client's own error."""
    client = Client(service.address)
    client.close()
    with pytest.raises(AmissClientError, match="closed"):
        client.list_detectors()
    with pytest.raises(AmissClientError, match="closed"):
        client.score_table("table", {"size": [1.0]})

    async def go() -> None:
        async with AsyncClient(service.address) as other:
            await other.list_detectors()
        await other.score_table("table", {"size": [1.0]})

    with pytest.raises(AmissClientError, match="closed"):
        asyncio.run(go())
