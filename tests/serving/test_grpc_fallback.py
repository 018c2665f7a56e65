"""With a grpcio whose internals are not as we know them, RPCs are slower and otherwise the same."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from amiss.oip import open_inference_pb2 as oip
from amiss.oip import open_inference_pb2_grpc as oip_grpc
from amiss.v1 import scoring_pb2 as pb
from amiss.v1 import scoring_pb2_grpc
from amiss_serving import grpc_bridge, grpc_server
from amiss_serving.server import serving
from bundle_factory import write_table_bundle

from .conftest import TOKEN, free_ports, rows

SERVING = health_pb2.HealthCheckResponse.SERVING


def score(x: np.ndarray[Any, Any], detector: str = "table") -> pb.ScoreRequest:
    tensor = pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=x.shape, data=x.tobytes())
    return pb.ScoreRequest(detector=detector, tensor=tensor)


def infer(x: np.ndarray[Any, Any]) -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(name="rows", datatype="FP32", shape=x.shape)
    return oip.ModelInferRequest(
        model_name="table", inputs=[tensor], raw_input_contents=[x.tobytes()]
    )


@pytest.fixture(params=[True, False], ids=["known", "unknown"])
def is_known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the service takes grpcio's internals for known."""
    for module in (grpc_server, grpc_bridge):
        monkeypatch.setattr(module, "is_supported", lambda: request.param)
    return bool(request.param)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


@pytest.mark.usefixtures("is_known")
async def test_rpcs_of_every_kind_are_answered(tmp_path: Path) -> None:
    """Scoring, streams both ways, health, errors with their trailers, and many at once."""
    write_table_bundle(tmp_path)
    async with (
        serving(free_ports(tmp_path)) as addresses,
        grpc.aio.insecure_channel(addresses.grpc) as channel,
    ):
        scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        inference: Any = oip_grpc.GRPCInferenceServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        first = await scoring.Score(score(rows(1)))
        again = await asyncio.gather(*(scoring.Score(score(rows(1))) for _ in range(50)))
        assert all(answer.scores == first.scores for answer in again)
        assert (await inference.ModelInfer(infer(rows(1)))).model_name == "table"

        async def requests() -> AsyncIterator[oip.ModelInferRequest]:
            for _ in range(3):
                yield infer(rows(1))

        parts = [part async for part in inference.ModelStreamInfer(requests())]
        assert [part.error_message for part in parts] == [""] * 3
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service="table"))
        assert (await watch.read()).status == SERVING
        watch.cancel()
        call = scoring.Score(score(rows(1), "absent"), metadata=(("x-request-id", "mine"),))
        assert await code_of(call) is grpc.StatusCode.NOT_FOUND
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine"
        assert (await scoring.ListDetectors(pb.ListDetectorsRequest())).detectors


@pytest.mark.usefixtures("is_known")
async def test_the_token_closes_every_rpc(tmp_path: Path) -> None:
    """Unary or stream, in whatever loop: without the token nothing is answered but probes."""
    write_table_bundle(tmp_path)
    settings = free_ports(tmp_path, token=TOKEN)
    async with (
        serving(settings) as addresses,
        grpc.aio.insecure_channel(addresses.grpc) as channel,
    ):
        scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        inference: Any = oip_grpc.GRPCInferenceServiceStub(channel)
        closed = grpc.StatusCode.UNAUTHENTICATED
        assert await code_of(scoring.Score(score(rows(1)))) is closed
        assert await code_of(scoring.ListDetectors(pb.ListDetectorsRequest())) is closed
        wrong = (("authorization", "Bearer another"),)
        assert await code_of(inference.ModelInfer(infer(rows(1)), metadata=wrong)) is closed
        assert (await inference.ServerLive(oip.ServerLiveRequest())).live
        right = (("authorization", f"Bearer {TOKEN}"),)
        assert (await scoring.Score(score(rows(1)), metadata=right)).scores
