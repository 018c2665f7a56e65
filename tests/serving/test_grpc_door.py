"""What surrounds every RPC, whichever service it belongs to."""

from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from amiss_serving.auth import Gate
from amiss_serving.engine import Engine
from amiss_serving.grpc_server import build_grpc_server
from amiss_serving.inputs import Limits
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository
from amiss_serving.service import Service

METHODS = {
    "/inference.GRPCInferenceService/ModelInfer": "ModelInfer",
    "/amiss.v1.ScoringService/Score": "Score",
    "/made.Up/Rpc": "other",
}


@pytest.mark.parametrize("path", METHODS)
async def test_what_is_refused_at_the_door_is_counted_under_its_method(
    path: str, tmp_path: Path
) -> None:
    """A call without a token is counted by the name of its method, one nobody wrote as other."""
    metrics = Metrics(CollectorRegistry())
    repository = DetectorRepository(tmp_path, lambda *_: pytest.fail("nothing to load"))
    limits = Limits(1, 1, 1)
    service = Service(repository, Engine(metrics), metrics, limits=limits, default_timeout_s=1)
    server, _ = build_grpc_server(service, Gate("token"))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(path)(b"")
    await server.stop(0)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    labels = {"model": "", "version": "", "protocol": "grpc", "code": "UNAUTHENTICATED"}
    labels["method"] = METHODS[path]
    assert metrics.registry.get_sample_value("amiss_requests_total", labels) == 1
