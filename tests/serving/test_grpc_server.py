"""The gRPC door, end to end on a free port: scoring, listing, health, reflection, its errors."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from amiss.v1 import scoring_pb2 as pb
from amiss.v1 import scoring_pb2_grpc
from bundle_factory import GREY, image_scores, normal_rows, table_scores

from .conftest import POISON, Served, Slow, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(served.addresses.grpc) as channel:
        yield channel


@pytest.fixture
def scoring(channel: grpc.aio.Channel) -> Any:
    return scoring_pb2_grpc.ScoringServiceStub(channel)


def tensor(x: np.ndarray[Any, Any], data_type: int = pb.DATA_TYPE_FLOAT32) -> pb.Tensor:
    return pb.Tensor(data_type=data_type, shape=x.shape, data=x.tobytes())


def by_name(*columns: pb.Column) -> pb.ScoreRequest:
    return pb.ScoreRequest(detector="table", columns=pb.Columns(columns=columns))


async def status(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_raw_table_tensor_is_scored(scoring: Any) -> None:
    """Scores equal the formula, verdicts follow the threshold, all fields have one value a row."""
    x = np.vstack([normal_rows(20, categories=2), 9 * normal_rows(20, categories=2)])
    x[:, 3] = 2
    x[0, 0] = np.nan
    answer = await scoring.Score(pb.ScoreRequest(detector="table", tensor=tensor(x)))
    np.testing.assert_allclose(answer.scores, table_scores(x), rtol=1e-6)
    assert list(answer.is_anomaly) == [s > answer.threshold for s in answer.scores]
    assert len(answer.normalized_scores) == len(answer.p_values) == 40
    assert (answer.detector, answer.version, answer.missing_value_count) == ("table", 1, 1)
    assert not answer.HasField("reconstruction")


async def test_columns_are_scored_in_every_form(scoring: Any) -> None:
    """Numbers, raw float64 and texts, in any order, with a column nobody reads, give one answer."""
    answer = await scoring.Score(
        by_name(
            pb.Column(name="colour", texts=pb.Texts(values=["red", "blue", ""])),
            pb.Column(name="x2", float64_data=np.array([2.0, 3, 4]).tobytes()),
            pb.Column(name="x0", numbers=pb.Numbers(values=[0, 1, float("nan")])),
            pb.Column(name="x1", texts=pb.Texts(values=["", "", ""])),
            pb.Column(name="label", texts=pb.Texts(values=["a", "b", "c"])),
        )
    )
    x = np.array([[0, np.nan, 2, 2], [1, np.nan, 3, 0], [np.nan, np.nan, 4, 1]], np.float32)
    np.testing.assert_allclose(answer.scores, table_scores(x), rtol=1e-6)
    assert (answer.unseen_category_count, answer.missing_value_count) == (1, 5)


async def test_a_png_scores_the_same_over_http_and_grpc(scoring: Any, served: Served) -> None:
    """The same bytes through both doors, and their pixels as a tensor, give one score."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    png = stream.getvalue()
    encoded = pb.ScoreRequest(detector="image", images=pb.EncodedImages(contents=[png]))
    raw = pb.ScoreRequest(detector="image", tensor=tensor(pixels[None, None], pb.DATA_TYPE_UINT8))
    async with httpx.AsyncClient(base_url=served.http) as client:
        posted = await client.post("/v1/detectors/image:score", files={"images": png})
    (over_http,) = posted.json()["results"]
    for request in (encoded, raw):
        answer = await scoring.Score(request)
        assert answer.scores[0] == over_http["score"]
        assert answer.p_values[0] == over_http["p_value"]
    np.testing.assert_allclose(over_http["score"], image_scores(pixels[None, None]), rtol=1e-5)


async def test_the_reconstruction_is_a_tensor_shaped_like_the_input(scoring: Any) -> None:
    """When asked for, it comes as float32 in the shape of what was sent."""
    pixels = np.zeros((2, 1, 8, 8), np.uint8)
    answer = await scoring.Score(
        pb.ScoreRequest(
            detector="image", tensor=tensor(pixels, pb.DATA_TYPE_UINT8), include_reconstruction=True
        )
    )
    got = answer.reconstruction
    assert (got.data_type, list(got.shape)) == (pb.DATA_TYPE_FLOAT32, [2, 1, 8, 8])
    assert (np.frombuffer(got.data, "<f4") == GREY).all()


async def test_detectors_are_listed_and_got(scoring: Any) -> None:
    """The list says what each expects and which bundle was refused; GetDetector says the same."""
    listed = await scoring.ListDetectors(pb.ListDetectorsRequest())
    assert [d.name for d in listed.detectors] == ["image", "table"]
    assert [(r.name, r.version) for r in listed.refused_bundles] == [("broken", 1)]
    assert (await scoring.GetDetector(pb.GetDetectorRequest(name="image"))).detector == (
        listed.detectors[0]
    )
    image, table = listed.detectors
    assert (image.image.channels, image.image.height, image.image.width) == (1, 8, 8)
    assert list(table.table.columns[3].categories) == ["red", "green"]
    assert table.table.columns[3].kind == pb.COLUMN_KIND_CATEGORY
    assert table.create_time.ToJsonString() == "2026-01-02T03:04:05Z"
    assert (table.calibration_method, table.calibration_row_count) == ("marginal", 200)


GOOD = np.zeros((1, 4), np.float32)
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (pb.ScoreRequest(detector="table"), INVALID, "one of images, tensor or columns"),
        (
            pb.ScoreRequest(detector="none", tensor=tensor(GOOD)),
            grpc.StatusCode.NOT_FOUND,
            "no detector 'none'; being served: image, table",
        ),
        (
            pb.ScoreRequest(detector="broken", tensor=tensor(GOOD)),
            grpc.StatusCode.NOT_FOUND,
            "version 1 was refused: broken/1: model.onnx is not the file",
        ),
        (
            pb.ScoreRequest(detector="table", version="9", tensor=tensor(GOOD)),
            grpc.StatusCode.NOT_FOUND,
            "no version or label '9'",
        ),
        (
            pb.ScoreRequest(detector="table", tensor=tensor(GOOD, pb.DATA_TYPE_UNSPECIFIED)),
            INVALID,
            "data_type",
        ),
        (
            pb.ScoreRequest(detector="table", tensor=pb.Tensor(data_type=2, shape=[2**62, 4])),
            INVALID,
            "got 0 bytes",
        ),
        (
            pb.ScoreRequest(detector="table", tensor=tensor(GOOD + np.float32(np.inf))),
            INVALID,
            "finite",
        ),
        (
            pb.ScoreRequest(detector="table", tensor=tensor(np.zeros((51, 4), np.float32))),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "50 rows, got 51",
        ),
        (
            pb.ScoreRequest(detector="image", images=pb.EncodedImages(contents=[b"x"])),
            INVALID,
            "image 0: expected an image",
        ),
        (
            pb.ScoreRequest(detector="table", images=pb.EncodedImages(contents=[b"x"])),
            INVALID,
            "reads tables",
        ),
        (by_name(pb.Column(name="x0"), pb.Column(name="x0")), INVALID, "no values"),
        (
            by_name(*[pb.Column(name="x0", numbers=pb.Numbers(values=[1]))] * 2),
            INVALID,
            "there twice",
        ),
        (by_name(pb.Column(name="x0", float64_data=b"1234567")), INVALID, "8 bytes a row"),
        (
            by_name(pb.Column(name="x0", numbers=pb.Numbers(values=[1]))),
            INVALID,
            "missing column",
        ),
    ],
)
async def test_bad_requests_say_what_was_expected(
    scoring: Any, request_: pb.ScoreRequest, code: grpc.StatusCode, message: str
) -> None:
    """Each is answered with its status, a message that helps, and the request id."""
    error = await status(scoring.Score(request_, metadata=(("x-request-id", "my-id"),)))
    assert error.code() == code
    assert message in (error.details() or "")
    assert ("x-request-id", "my-id") in tuple(error.trailing_metadata())


async def test_a_message_over_the_limit_is_refused(scoring: Any) -> None:
    """Beyond max_body_bytes (and a little for the envelope) the message is not taken in."""
    request = pb.ScoreRequest(detector="image", images=pb.EncodedImages(contents=[b"x" * 300_000]))
    error = await status(scoring.Score(request))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_good_answer_carries_the_callers_request_id(scoring: Any) -> None:
    """An id that came along is sent back."""
    metadata = (("x-request-id", "mine-1"),)
    call = scoring.Score(pb.ScoreRequest(detector="table", tensor=tensor(GOOD)), metadata=metadata)
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine-1"


async def test_health_speaks_for_the_whole_and_for_each_detector(
    channel: grpc.aio.Channel,
) -> None:
    """Served names are SERVING, the refused one NOT_SERVING, an unknown one NOT_FOUND."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    expected = {
        "": SERVING,
        "amiss.v1.ScoringService": SERVING,
        "table": SERVING,
        "image": SERVING,
        "broken": NOT_SERVING,
    }
    for name, wanted in expected.items():
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == wanted, name
    error = await status(health.Check(health_pb2.HealthCheckRequest(service="none")))
    assert error.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_every_service(channel: grpc.aio.Channel) -> None:
    """Tools without our .proto files find scoring, health and reflection itself."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = [answer async for answer in stub.ServerReflectionInfo(asked)]
    assert {service.name for service in answer.list_services_response.service} == {
        "amiss.v1.ModelService",
        "amiss.v1.ScoringService",
        "grpc.health.v1.Health",
        "inference.GRPCInferenceService",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.asyncio(loop_scope="function")
async def test_deadline_and_cancellation_are_the_callers(slow: Slow) -> None:
    """A caller's deadline ends its call, a cancelled call's rows are never computed."""
    slow.runtime.free.clear()
    request = pb.ScoreRequest(detector="table", tensor=tensor(rows(1)))
    async with grpc.aio.insecure_channel(slow.addresses.grpc) as channel:
        scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        busy = scoring.Score(request)
        while not slow.runtime.entered.is_set():
            await asyncio.sleep(0.005)
        late, dropped = scoring.Score(request, timeout=0.1), scoring.Score(request)
        assert (await status(late)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        dropped.cancel()
        await asyncio.sleep(0.1)
        slow.runtime.free.set()
        await busy
    assert [n for n, _ in slow.runtime.calls] == [1]


@pytest.mark.asyncio(loop_scope="function")
async def test_an_unexpected_error_is_answered_in_general(slow: Slow) -> None:
    """The model's own words stay in the log; the caller gets INTERNAL and the id to look for."""
    async with grpc.aio.insecure_channel(slow.addresses.grpc) as channel:
        scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        bad = pb.ScoreRequest(detector="table", tensor=tensor(rows(POISON)))
        error = await status(scoring.Score(bad, metadata=(("x-request-id", "look-here"),)))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "look-here" in (error.details() or "")
    assert "poison" not in (error.details() or "")


@pytest.mark.asyncio(loop_scope="function")
async def test_a_full_queue_says_when_to_retry_and_too_large_does_not(slow: Slow) -> None:
    """Both are RESOURCE_EXHAUSTED; only the full queue carries retry-after beside the id."""
    slow.runtime.free.clear()
    async with grpc.aio.insecure_channel(slow.addresses.grpc) as channel:
        scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        five = pb.ScoreRequest(detector="table", tensor=tensor(rows(*[0] * 5)))
        busy = scoring.Score(five)
        while not slow.runtime.entered.is_set():
            await asyncio.sleep(0.005)
        waiting = scoring.Score(five)
        await asyncio.sleep(0.1)
        full = await status(scoring.Score(five, metadata=(("x-request-id", "mine"),)))
        nine = pb.ScoreRequest(detector="table", tensor=tensor(rows(*[0] * 9)))
        large = await status(scoring.Score(nine))
        slow.runtime.free.set()
        await busy
        await waiting
    assert full.code() == large.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(full.trailing_metadata()) == {"x-request-id": "mine", "retry-after": "1"}
    assert set(dict(large.trailing_metadata())) == {"x-request-id"}


@pytest.mark.parametrize("message", [b"\xff\xff", b"\x0a\x02\xff\xfe"])
async def test_a_message_that_is_none_is_bad_input(
    channel: grpc.aio.Channel, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Corrupt bytes are INVALID_ARGUMENT with the request id, and no traceback in the log."""
    call = channel.unary_unary("/amiss.v1.ScoringService/Score")
    error = await status(call(message, metadata=(("x-request-id", "mine"),)))
    assert error.code() == INVALID
    assert "amiss.v1.ScoreRequest" in (error.details() or "")
    assert ("x-request-id", "mine") in tuple(error.trailing_metadata())
    assert not [record for record in caplog.records if record.exc_info]


async def test_methods_nobody_wrote_are_answered_with_the_id(channel: grpc.aio.Channel) -> None:
    """An unknown method, in our service or another, is UNIMPLEMENTED, with its id."""
    for method in ("/amiss.v1.ScoringService/Made", "/made.Up/Rpc"):
        error = await status(channel.unary_unary(method)(b"", metadata=(("x-request-id", "mine"),)))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
        assert method in (error.details() or "")
        assert ("x-request-id", "mine") in tuple(error.trailing_metadata())


async def test_health_list_is_no_traceback(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """The List of newer health definitions is UNIMPLEMENTED, quietly."""
    error = await status(channel.unary_unary("/grpc.health.v1.Health/List")(b""))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert not [record for record in caplog.records if record.exc_info]
