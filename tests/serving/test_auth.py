"""Without the token every route and RPC but health is closed, those nobody wrote included."""

import asyncio
import struct
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from amiss_serving.auth import OPEN_RPCS, Gate
from amiss_serving.engine import Engine
from amiss_serving.errors import Unauthenticated
from amiss_serving.http_server import OPEN_ROUTES, build_http_app, build_metrics_app
from amiss_serving.inputs import Limits
from amiss_serving.metrics import Metrics
from amiss_serving.repository import DetectorRepository
from amiss_serving.service import Service

from .conftest import TOKEN, Served

pytestmark = pytest.mark.asyncio(loop_scope="module")
WRONG = [
    {},
    {"authorization": ""},
    {"authorization": "Bearer"},
    {"authorization": f"Basic {TOKEN}"},
    {"authorization": TOKEN},
    {"authorization": f"Bearer {TOKEN}x"},
    {"authorization": f"Bearer {TOKEN[:-1]}"},
    {"x-authorization": f"Bearer {TOKEN}"},
]
RIGHT = {"authorization": f"Bearer {TOKEN}"}


def routes(tmp_path: Any) -> list[tuple[str, str, str]]:
    """(port, method, path) of every route the applications have, parameters filled in."""
    metrics = Metrics(CollectorRegistry())
    service = Service(
        DetectorRepository(tmp_path, lambda *_: pytest.fail("nothing to load")),
        Engine(metrics),
        metrics,
        limits=Limits(1, 1, 1),
        default_timeout_s=1,
    )
    apps = {
        "http": build_http_app(service, Gate(None)).app,
        "metrics": build_metrics_app(service, Gate(None)).app,
    }
    return [
        (port, method, route.path.format(name="table", version="1"))
        for port, app in apps.items()
        for route in app.routes
        for method in route.methods
        if route.name not in OPEN_ROUTES
    ]


async def test_every_http_route_refuses_without_the_token(guarded: Served, tmp_path: Any) -> None:
    """Each route of both ports is 401 for no and each wrong token, and not with the right one."""
    found = routes(tmp_path)
    assert {path for _, _, path in found} == {
        "/v1/detectors/table:score",
        "/v1/detectors/table/versions/1:score",
        "/v1/detectors",
        "/v1/detectors/table",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/v2",
        "/v2/models/stats",
        "/v2/repository/index",
        "/v2/repository/models/table/load",
        "/v2/repository/models/table/unload",
        *(
            f"/v2/models/table{version}{suffix}"
            for version in ("", "/versions/1")
            for suffix in ("", "/ready", "/config", "/stats", "/infer")
        ),
    }
    ports = {"http": guarded.addresses.http, "metrics": guarded.addresses.metrics}
    async with httpx.AsyncClient() as client:
        for port, method, path in found:
            url = f"http://{ports[port]}{path}"
            for headers in WRONG:
                refused = await client.request(method, url, headers=headers)
                assert refused.status_code == 401, (url, headers)
                assert refused.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in refused.text
            assert (await client.request(method, url, headers=RIGHT)).status_code != 401


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/healthz/",
        "//healthz",
        "/HEALTHZ",
        "/healthz/../v1/detectors",
        "/v1/detectors;/healthz",
        "/v1/detectors?/healthz",
        "/v2/health/live/",
        "/v2/health/alive",
        "/readyz%2f",
    ],
)
async def test_paths_nobody_wrote_are_closed_too(guarded: Served, path: str) -> None:
    """An unknown path, or one that only resembles health, is 401, not 404."""
    async with httpx.AsyncClient() as client:
        assert (await client.get(guarded.http + path)).status_code == 401
        assert (await client.get(f"http://{guarded.addresses.metrics}{path}")).status_code == 401


async def test_health_needs_no_token(guarded: Served) -> None:
    """/healthz and /readyz answer probes, on the HTTP port only."""
    async with httpx.AsyncClient() as client:
        for path in ("/healthz", "/readyz"):
            assert (await client.get(guarded.http + path)).status_code == 200
            assert (await client.head(guarded.http + path)).status_code == 200
            assert (await client.post(guarded.http + path)).status_code == 401


async def rpcs(channel: grpc.aio.Channel) -> list[str]:
    """Every method of every service that the running server reflects."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    call = stub.ServerReflectionInfo(asked, metadata=tuple(RIGHT.items()))
    (answer,) = [answer async for answer in call]
    pool = descriptor_pool.Default()
    return [
        f"/{service.name}/{method.name}"
        for service in answer.list_services_response.service
        for method in pool.FindServiceByName(service.name).methods
    ]


async def code(channel: grpc.aio.Channel, rpc: str, headers: dict[str, str]) -> grpc.StatusCode:
    """What a call with an empty message ends with."""
    call = channel.unary_stream(rpc)(b"", metadata=tuple(headers.items()), timeout=2)
    async for _ in call:
        call.cancel()
        return grpc.StatusCode.OK
    return await call.code()


async def ended(channel: grpc.aio.Channel, rpc: str, headers: dict[str, str]) -> grpc.StatusCode:
    try:
        return await code(channel, rpc, headers)
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_every_rpc_refuses_without_the_token(guarded: Served) -> None:
    """Each RPC, reflected or made up, is UNAUTHENTICATED without the token; health is not."""
    async with grpc.aio.insecure_channel(guarded.addresses.grpc) as channel:
        found = await rpcs(channel)
        assert len(found) >= 6
        assert set(found) >= OPEN_RPCS
        closed = [rpc for rpc in found if rpc not in OPEN_RPCS]
        assert {rpc.rpartition("/")[2] for rpc in OPEN_RPCS} == {
            "Check",
            "Watch",
            "ServerLive",
            "ServerReady",
        }
        for rpc in (*closed, "/amiss.v1.ScoringService/Made", "/made.Up/Rpc"):
            for headers in WRONG:
                assert await ended(channel, rpc, headers) == grpc.StatusCode.UNAUTHENTICATED, rpc
            assert await ended(channel, rpc, RIGHT) != grpc.StatusCode.UNAUTHENTICATED, rpc
        for rpc in OPEN_RPCS:
            assert await ended(channel, rpc, {}) != grpc.StatusCode.UNAUTHENTICATED, rpc
        check = "/grpc.health.v1.Health/Check"
        assert await ended(channel, check, {}) == grpc.StatusCode.OK


def h2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def test_a_path_of_any_bytes_is_refused_and_harms_nobody(guarded: Served) -> None:
    """No client library sends a path that is no text; whoever does is told, the rest go on."""
    host, port = guarded.addresses.grpc.split(":")
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":authority": b"localhost",
        b":path": b"/\xff\xfe/x",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    block = b"".join(  # literals that are not indexed (RFC 7541, 6.2.2)
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in fields.items()
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0, b"")
    writer.write(preface + h2_frame(1, 5, 1, block))
    answer = b""
    async with asyncio.timeout(5):
        while b"UNAUTH" not in answer.upper() and b"got none" not in answer:
            answer += await reader.read(4096)
    writer.close()
    async with grpc.aio.insecure_channel(guarded.addresses.grpc) as channel:
        check = "/grpc.health.v1.Health/Check"
        assert await ended(channel, check, {}) == grpc.StatusCode.OK


async def test_a_refused_rpc_does_not_wait_for_its_message(guarded: Served) -> None:
    """A caller without the token who opens a stream and sends nothing is refused at once."""
    async with grpc.aio.insecure_channel(guarded.addresses.grpc) as channel:
        rpc = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        call = channel.stream_stream(rpc)(timeout=5)
        assert await call.code() == grpc.StatusCode.UNAUTHENTICATED
        assert await call.trailing_metadata()


async def test_without_a_token_everyone_may_pass() -> None:
    """A gate without a token refuses nobody; with one it takes 'bearer' in any case."""
    Gate(None).check(None)
    Gate("secret").check("bearer secret")
    Gate("secret").check(b"BEARER secret")
    with pytest.raises(Unauthenticated, match="got none"):
        Gate("secret").check(None)
    with pytest.raises(Unauthenticated, match="got another token"):
        Gate("secret").check("Bearer Secret")
