"""The Open Inference Protocol over gRPC, end to end on a free port."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from amiss.oip import open_inference_pb2 as pb
from amiss.oip import open_inference_pb2_grpc
from amiss_serving.server import serving
from bundle_factory import GREY, image_scores, normal_rows, table_scores

from .conftest import POISON, TOKEN, Served, Slow, free_ports, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")
INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
FIVE = ["score", "normalized_score", "p_value", "is_anomaly", "threshold"]
Asked = pb.ModelInferRequest.InferRequestedOutputTensor
Input = pb.ModelInferRequest.InferInputTensor
Parameter = pb.InferParameter


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stub(served: Served) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(served.addresses.grpc) as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(x: np.ndarray[Any, Any], *outputs: str, **fields: Any) -> pb.ModelInferRequest:
    """A raw request for the detector that takes x."""
    name, model, datatype = (
        ("images", "image", "UINT8") if x.ndim == 4 else ("rows", "table", "FP32")
    )
    message: dict[str, Any] = {
        "model_name": model,
        "inputs": [Input(name=name, datatype=datatype, shape=x.shape)],
        "outputs": [Asked(name=output) for output in outputs],
        "raw_input_contents": [x.tobytes()],
        **fields,
    }
    return pb.ModelInferRequest(**message)


def typed(x: np.ndarray[Any, Any], **fields: Any) -> pb.ModelInferRequest:
    """The same request with its elements in the field of their type."""
    message = request(x, **fields)
    field = "uint_contents" if x.dtype == np.uint8 else "fp32_contents"
    getattr(message.inputs[0].contents, field).extend(x.ravel().tolist())
    del message.raw_input_contents[:]
    return message


async def status(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


X = normal_rows(20, categories=2)
PIXELS = np.random.default_rng(0).integers(0, 255, (3, 1, 8, 8)).astype(np.uint8)


async def test_raw_is_answered_raw_and_typed_typed(stub: Any) -> None:
    """The five outputs of either form hold the same values, and nothing is there twice."""
    for x, expected in ((X, table_scores(X)), (PIXELS, image_scores(PIXELS))):
        raw = await stub.ModelInfer(request(x, id="mine"))
        fields = await stub.ModelInfer(typed(x))
        assert [output.name for output in raw.outputs] == FIVE
        assert (raw.id, raw.model_version, fields.id) == ("mine", "1", "")
        assert not any(output.HasField("contents") for output in raw.outputs)
        assert not fields.raw_output_contents
        score = np.frombuffer(raw.raw_output_contents[0], "<f4")
        np.testing.assert_allclose(score, expected, rtol=1e-5)
        np.testing.assert_array_equal(score, fields.outputs[0].contents.fp32_contents)
        alarms = np.frombuffer(raw.raw_output_contents[3], "?")
        assert alarms.tolist() == list(fields.outputs[3].contents.bool_contents)
        (threshold,) = np.frombuffer(raw.raw_output_contents[4], "<f4")
        assert alarms.tolist() == (score > threshold).tolist()
        assert [list(output.shape) for output in raw.outputs] == [[len(x)]] * 4 + [[1]]
        for output, contents in zip(raw.outputs, raw.raw_output_contents, strict=True):
            size = {"FP32": 4, "BOOL": 1}[output.datatype]
            assert len(contents) == size * int(np.prod(output.shape))


async def test_outputs_come_as_asked_for(stub: Any) -> None:
    """Only those named, in that order; the reconstruction in the shape of the input."""
    answer = await stub.ModelInfer(request(PIXELS, "reconstruction", "score"))
    assert [output.name for output in answer.outputs] == ["reconstruction", "score"]
    assert list(answer.outputs[0].shape) == [3, 1, 8, 8]
    assert (np.frombuffer(answer.raw_output_contents[0], "<f4") == GREY).all()


async def test_a_missing_number_travels_as_nan(stub: Any) -> None:
    """NaN in a column that imputes is scored, an infinity is not."""
    x = X[:1].copy()
    x[0, 0] = np.nan
    answer = await stub.ModelInfer(request(x, "score"))
    np.testing.assert_allclose(
        np.frombuffer(answer.raw_output_contents[0], "<f4"), table_scores(x), rtol=1e-6
    )
    x[0, 0] = np.inf
    assert "finite" in ((await status(stub.ModelInfer(request(x)))).details() or "")


ONE = X[:1]
HALF = {"classification": Parameter(int64_param=2)}


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (request(ONE, model_name="none"), grpc.StatusCode.NOT_FOUND, "no detector 'none'"),
        (request(ONE, model_version="9"), grpc.StatusCode.NOT_FOUND, "version or label '9'"),
        (request(ONE, "pred"), INVALID, "no output 'pred'; there are score, normalized_score"),
        (request(ONE, "score", "score"), INVALID, "each output once"),
        (request(ONE, inputs=[]), INVALID, "expected one input 'rows', got none"),
        (
            request(ONE, inputs=[Input(name="x", datatype="FP32", shape=[1, 4])]),
            INVALID,
            "expected one input 'rows' FP32 [-1, 4] with at least one row, got 'x' FP32 [1, 4]",
        ),
        (
            request(ONE, inputs=[Input(name="rows", datatype="FP64", shape=[1, 4])]),
            INVALID,
            "got 'rows' FP64 [1, 4]",
        ),
        (
            request(ONE, inputs=[Input(name="rows", datatype="FP32", shape=[1, 3])]),
            INVALID,
            "got 'rows' FP32 [1, 3]",
        ),
        (
            request(ONE, inputs=[Input(name="rows", datatype="FP32", shape=[0, 4])]),
            INVALID,
            "at least one row",
        ),
        (
            request(ONE, inputs=[Input(name="rows", datatype="FP32", shape=[-1, 4])]),
            INVALID,
            "at least one row",
        ),
        (
            request(ONE, inputs=[Input(name="rows", datatype="FP32")]),
            INVALID,
            "got 'rows' FP32 []",
        ),
        (
            request(ONE, inputs=[Input(name="rows", datatype="FP32", shape=[2**61, 4])]),
            INVALID,
            "got 16 bytes",
        ),
        (request(ONE, raw_input_contents=[b"1234"] * 2), INVALID, "2 raw and 0 typed"),
        (request(ONE, raw_input_contents=[]), INVALID, "holds 4 elements, got 0"),
        (request(ONE, raw_input_contents=[ONE.tobytes()[:-1]]), INVALID, "got 15 bytes"),
        (
            request(
                ONE,
                inputs=[
                    Input(
                        name="rows",
                        datatype="FP32",
                        shape=[1, 4],
                        contents=pb.InferTensorContents(fp32_contents=[0] * 4),
                    )
                ],
            ),
            INVALID,
            "1 raw and 1 typed",
        ),
        (
            request(ONE, parameters={"sequence_id": Parameter(int64_param=7)}),
            INVALID,
            "'sequence_id' is not supported",
        ),
        (
            request(ONE, outputs=[Asked(name="score", parameters=HALF)]),
            INVALID,
            "'classification' is not supported",
        ),
        (
            request(ONE, parameters={"timeout": Parameter(string_param="soon")}),
            INVALID,
            "microseconds",
        ),
        (
            request(np.zeros((51, 4), np.float32)),
            EXHAUSTED,
            "50 rows, got 51",
        ),
    ],
)
async def test_bad_requests_say_what_was_expected(
    stub: Any, message: pb.ModelInferRequest, code: grpc.StatusCode, words: str
) -> None:
    """Each is answered with its status, a message that helps, and the request id."""
    call = stub.ModelInfer(message, metadata=(("x-request-id", "my-id"),))
    error = await status(call)
    assert error.code() == code
    assert words in (error.details() or "")
    assert ("x-request-id", "my-id") in tuple(error.trailing_metadata())


async def test_parameters_that_change_nothing_are_ignored(stub: Any) -> None:
    """Priority, names nobody knows and zeros pass."""
    parameters = {
        "priority": Parameter(uint64_param=1),
        "made_up": Parameter(double_param=0.5),
        "sequence_id": Parameter(int64_param=0),
    }
    assert (await stub.ModelInfer(request(ONE, parameters=parameters))).outputs


async def test_the_server_and_its_detectors_describe_themselves(stub: Any) -> None:
    """Metadata and configuration name the tensors, with and without the row axis."""
    server = await stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (server.name, "statistics" in server.extensions) == ("amiss", True)
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="image"))
    assert (metadata.platform, list(metadata.versions)) == ("onnx_onnxv1", ["1"])
    assert [list(t.shape) for t in metadata.inputs] == [[-1, 1, 8, 8]]
    shapes = {t.name: list(t.shape) for t in metadata.outputs}
    assert shapes == {
        **{name: [-1] for name in FIVE},
        "threshold": [1],
        "reconstruction": [-1, 1, 8, 8],
    }
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="table"))).config
    assert (config.backend, config.max_batch_size) == ("onnx", 50)
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("rows", pb.TYPE_FP32, [4])
    ]
    assert config.output[3].data_type == pb.TYPE_BOOL


async def test_readiness_is_a_plain_yes_or_no(stub: Any) -> None:
    """Live and ready; of detectors the served is, the refused and the unknown are not."""
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    for name, ready in (("table", True), ("broken", False), ("none", False)):
        assert (await stub.ModelReady(pb.ModelReadyRequest(name=name))).ready is ready


async def test_the_index_lists_what_does_not_serve_and_why(stub: Any) -> None:
    """The broken bundle is UNAVAILABLE with its reason, and left out when only ready is asked."""
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    found = {m.name: (m.version, m.state) for m in index.models}
    assert found == {
        "broken": ("1", "UNAVAILABLE"),
        "image": ("1", "READY"),
        "table": ("1", "READY"),
    }
    assert "sha256" in next(m.reason for m in index.models if m.name == "broken")
    ready = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert [m.name for m in ready.models] == ["image", "table"]


async def test_load_and_unload_are_off_unless_switched_on(stub: Any) -> None:
    """PERMISSION_DENIED names the option; parameters of a load are refused by name."""
    for call in (
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="table")),
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="table")),
    ):
        error = await status(call)
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "--repository-mode explicit" in (error.details() or "")
    parameters = {"config": pb.ModelRepositoryParameter(string_param="{}")}
    load = pb.RepositoryModelLoadRequest(model_name="table", parameters=parameters)
    assert (await status(stub.RepositoryModelLoad(load))).code() == INVALID


async def test_statistics_are_asked_for_one_or_all(stub: Any) -> None:
    """A request more is a success more; an unknown detector is NOT_FOUND."""
    one = pb.ModelStatisticsRequest(name="table", version="1")
    before = (await stub.ModelStatistics(one)).model_stats[0]
    await stub.ModelInfer(request(X))
    after = (await stub.ModelStatistics(one)).model_stats[0]
    assert after.inference_count - before.inference_count == len(X)
    assert after.execution_count - before.execution_count == 1
    runs = {b.batch_size: b.compute_infer.count for b in after.batch_stats}
    assert runs[len(X)] >= 1
    assert sum(runs.values()) == after.execution_count
    gained = after.inference_stats.success.ns - before.inference_stats.success.ns
    assert (
        gained >= after.inference_stats.compute_infer.ns - before.inference_stats.compute_infer.ns
    )
    assert after.last_inference >= before.last_inference > 0
    everything = await stub.ModelStatistics(pb.ModelStatisticsRequest())
    assert [s.name for s in everything.model_stats] == ["image", "table"]
    error = await status(stub.ModelStatistics(pb.ModelStatisticsRequest(name="none")))
    assert error.code() == grpc.StatusCode.NOT_FOUND


async def test_a_stream_answers_in_order_and_survives_its_errors(stub: Any) -> None:
    """Two hundred requests on one stream; one that failed says so under its id."""
    messages = [request(X[i % 20 : i % 20 + 1], "score", id=str(i)) for i in range(200)]
    messages[50] = request(ONE, model_name="none", id="50")
    answers = [answer async for answer in stub.ModelStreamInfer(iter(messages))]
    assert [answer.infer_response.id for answer in answers] == [str(i) for i in range(200)]
    assert "no detector 'none'" in answers.pop(50).error_message
    scores = [np.frombuffer(a.infer_response.raw_output_contents[0], "<f4")[0] for a in answers]
    expected = np.delete(np.resize(table_scores(X), 200), 50)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


async def test_bytes_that_are_no_message_are_bad_input(served: Served) -> None:
    """Alone they are INVALID_ARGUMENT, in a stream an error among the answers."""
    async with grpc.aio.insecure_channel(served.addresses.grpc) as channel:
        path = "/inference.GRPCInferenceService/"
        error = await status(channel.unary_unary(path + "ModelInfer")(b"\xff\xff"))
        assert error.code() == INVALID
        assert "inference.ModelInferRequest" in (error.details() or "")
        call = channel.stream_stream(
            path + "ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
        )
        good = request(ONE).SerializeToString()
        bad, answered = [answer async for answer in call(iter([b"\xff\xff", good]))]
        assert "expected a message" in bad.error_message
        assert answered.infer_response.outputs


async def test_probes_are_open_and_the_rest_is_not(guarded: Served) -> None:
    """Without the token ServerLive and ServerReady answer, metadata does not."""
    async with grpc.aio.insecure_channel(guarded.addresses.grpc) as channel:
        stub: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        error = await status(stub.ServerMetadata(pb.ServerMetadataRequest()))
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        error = await status(stub.ModelStreamInfer().read())
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        token = (("authorization", f"Bearer {TOKEN}"),)
        assert (await stub.ModelInfer(request(ONE), metadata=token)).outputs


@pytest.mark.asyncio(loop_scope="function")
async def test_an_empty_service_is_live_and_not_ready(tmp_path: Any) -> None:
    """Both are answers, not errors."""
    async with (
        serving(free_ports(tmp_path)) as addresses,
        grpc.aio.insecure_channel(addresses.grpc) as channel,
    ):
        stub: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="table"))).ready


async def entered(slow: Slow) -> None:
    while not slow.runtime.entered.is_set():
        await asyncio.sleep(0.005)


@pytest.mark.asyncio(loop_scope="function")
async def test_the_smaller_deadline_wins_and_a_cancelled_call_is_not_computed(slow: Slow) -> None:
    """The parameter below the RPC's deadline ends the call; cancelled rows never reach the model,
    nor do those of a stream whose caller hung up."""
    slow.runtime.free.clear()
    async with grpc.aio.insecure_channel(slow.addresses.grpc) as channel:
        stub: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        busy = stub.ModelInfer(request(rows(1)))
        await entered(slow)
        soon = {"timeout": Parameter(int64_param=100_000)}
        late = await status(stub.ModelInfer(request(rows(2), parameters=soon), timeout=30))
        assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "the deadline passed" in (late.details() or "")
        dropped = stub.ModelInfer(request(rows(3)))
        stream = stub.ModelStreamInfer()
        await stream.write(request(rows(4)))
        await asyncio.sleep(0.1)
        dropped.cancel()
        stream.cancel()
        await asyncio.sleep(0.1)
        slow.runtime.free.set()
        await busy
    assert [n for n, _ in slow.runtime.calls] == [1]


@pytest.mark.asyncio(loop_scope="function")
async def test_an_unexpected_error_is_answered_in_general(slow: Slow) -> None:
    """The model's own words stay in the log, in a stream as anywhere; a failure is counted."""
    async with grpc.aio.insecure_channel(slow.addresses.grpc) as channel:
        stub: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        bad = request(rows(POISON))
        metadata = (("x-request-id", "look-here"),)
        error = await status(stub.ModelInfer(bad, metadata=metadata))
        assert error.code() == grpc.StatusCode.INTERNAL
        assert "look-here" in (error.details() or "")
        (answer,) = [a async for a in stub.ModelStreamInfer(iter([bad]), metadata=metadata)]
        assert "look-here" in answer.error_message
        assert "poison" not in f"{error.details()}{answer.error_message}"
        (statistics,) = (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
        assert statistics.inference_stats.fail.count == 2
