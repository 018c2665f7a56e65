"""Traces: what a collector on loopback receives, and that without one nothing is sent or loaded."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.semconv._incubating.attributes import rpc_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, url_attributes

from amiss.v1 import scoring_pb2 as pb
from amiss.v1 import scoring_pb2_grpc
from amiss_export.errors import BadInput
from amiss_serving.otel import FLUSH_S
from amiss_serving.server import serving
from amiss_serving.tracing import NO_TRACER, choose_tracer
from bundle_factory import write_table_bundle

from .conftest import POISON, free_ports, rows
from .seams import Seams

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = (f"00-{TRACE}-{PARENT}-{flags}" for flags in ("01", "00"))
SCORE = "/v1/detectors/table:score"


class Collector:
    """What arrived, decoded; it answers as a collector of OTLP over HTTP does."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.paths.append(self.path)
                outer.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def servers(self) -> list[Span]:
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def attributes(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in span.attributes}


def request(*first: float) -> pb.ScoreRequest:
    x = rows(*first)
    tensor = pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=x.shape, data=x.tobytes())
    return pb.ScoreRequest(detector="table", tensor=tensor)


async def test_both_doors_continue_the_callers_trace(tmp_path: Path, collector: Collector) -> None:
    """One server span a request, child of the caller's, with a child span for each phase in it."""
    write_table_bundle(tmp_path)
    async with serving(free_ports(tmp_path, trace_endpoint=collector.url)) as addresses:
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            stub: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
            sent = (("traceparent", SAMPLED), ("tracestate", "a=1"), ("x-request-id", "mine"))
            await stub.Score(request(1, 2), metadata=sent)
        async with httpx.AsyncClient(base_url=f"http://{addresses.http}") as client:
            headers = {"traceparent": SAMPLED}
            answer = await client.post(SCORE, json={"rows": [[0, 1, 2]]}, headers=headers)
            assert answer.status_code == 200
            for probe in ("/healthz", "/readyz"):
                await client.get(probe, headers=headers)
    assert collector.paths == ["/v1/traces"]
    over_grpc, over_http = collector.servers()
    assert over_grpc.name == "amiss.v1.ScoringService/Score"
    assert over_http.name == "POST /v1/detectors/{name}:score"
    assert over_grpc.trace_state == "a=1"
    about = attributes(over_grpc)
    assert about["rpc.system.name"] == "grpc"
    assert about["rpc.method"] == "amiss.v1.ScoringService/Score"
    assert about["rpc.response.status_code"] == "OK"
    assert (about["amiss.detector"], about["amiss.version"]) == ("table", "1")
    assert about["amiss.request_id"] == "mine"
    about = attributes(over_http)
    assert about["http.request.method"] == "POST"
    assert about["http.route"] == "/v1/detectors/{name}:score"
    assert about["http.response.status_code"] == 200
    assert (about["url.path"], about["url.scheme"]) == (SCORE, "http")
    for span in (over_grpc, over_http):
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert span.status.code == Status.STATUS_CODE_UNSET
        children = [child for child in collector.spans if child.parent_span_id == span.span_id]
        assert [child.name for child in children] == ["decode", "queue", "compute", "encode"]
        moments = [span.start_time_unix_nano]
        for child in children:
            assert child.trace_id.hex() == TRACE
            moments += [child.start_time_unix_nano, child.end_time_unix_nano]
        assert [*moments, span.end_time_unix_nano] == sorted([*moments, span.end_time_unix_nano])
        assert abs(time.time_ns() - span.end_time_unix_nano) < 60e9


async def test_the_parent_decides_whether_a_request_is_traced(
    tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """Not sampled upstream: no span, but its id in the log. No or a broken parent: a new trace."""
    write_table_bundle(tmp_path)
    with caplog.at_level("INFO"):
        async with (
            serving(free_ports(tmp_path, trace_endpoint=collector.url)) as addresses,
            httpx.AsyncClient(base_url=f"http://{addresses.http}") as client,
        ):
            await client.get("/v1/detectors/table", headers={"traceparent": UNSAMPLED})
            await client.get("/v1/detectors/table", headers={"traceparent": "00-broken"})
            await client.get("/v1/detectors")
    spans = collector.servers()
    assert [span.name for span in spans] == ["GET /v1/detectors/{name}", "GET /v1/detectors"]
    assert not any(span.parent_span_id for span in spans)
    logged = [r.fields["trace_id"] for r in caplog.records if r.getMessage() == "request"]  # type: ignore[attr-defined]
    assert logged == [TRACE, *(span.trace_id.hex() for span in spans)]


async def test_failures_of_the_service_are_errors_and_the_callers_are_not(
    tmp_path: Path, collector: Collector
) -> None:
    """500 and INTERNAL set the status ERROR and error.type; 404 and NOT_FOUND do not."""
    write_table_bundle(tmp_path)
    seams = Seams(tmp_path)
    settings = free_ports(tmp_path, trace_endpoint=collector.url)
    async with serving(settings, seams.build) as addresses:
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            stub: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
            for bad in (request(POISON), pb.ScoreRequest(detector="none")):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Score(bad)
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/made.Up/Rpc")(b"")
        async with httpx.AsyncClient(base_url=f"http://{addresses.http}") as client:
            await client.post(SCORE, json={"rows": [[POISON, 0, 0]]})
            await client.get("/v1/detectors/none")
            await client.request("PURGE", "/nowhere")
    failed = Status.STATUS_CODE_ERROR
    found = [
        (span.name, span.status.code == failed, attributes(span).get("error.type"))
        for span in collector.servers()
    ]
    assert found == [
        ("amiss.v1.ScoringService/Score", True, "INTERNAL"),
        ("amiss.v1.ScoringService/Score", False, None),
        ("grpc", True, "UNIMPLEMENTED"),
        ("POST /v1/detectors/{name}:score", True, "500"),
        ("GET /v1/detectors/{name}", False, None),
        ("HTTP", False, None),
    ]
    assert "internal error" in collector.servers()[0].status.message


async def test_attributes_are_those_of_the_conventions(
    tmp_path: Path, collector: Collector
) -> None:
    """Every attribute that is not amiss.* is a name that OpenTelemetry's package defines."""
    known = {
        value
        for module in (rpc_attributes, http_attributes, url_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper()
    } | {"network.protocol.version"}
    write_table_bundle(tmp_path)
    async with serving(free_ports(tmp_path, trace_endpoint=collector.url)) as addresses:
        async with httpx.AsyncClient(base_url=f"http://{addresses.http}") as client:
            await client.get("/v1/detectors")
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/made.Up/Rpc")(b"")
    used = {key for span in collector.spans for key in attributes(span)}
    assert {key for key in used if not key.startswith("amiss.")} <= known
    (resource,) = {
        a.value.string_value
        for asked in collector.requests
        for one in asked.resource_spans
        for a in one.resource.attributes
        if a.key == "service.name"
    }
    assert resource == "amiss"


async def test_a_collector_that_is_gone_does_not_hold_up_the_end(
    tmp_path: Path, collector: Collector
) -> None:
    """With spans that nobody takes, the service ends soon after FLUSH_S, not after retries."""
    collector.server.server_close()
    write_table_bundle(tmp_path)
    async with (
        serving(free_ports(tmp_path, trace_endpoint=collector.url)) as addresses,
        httpx.AsyncClient(base_url=f"http://{addresses.http}") as client,
    ):
        assert (await client.get("/v1/detectors")).status_code == 200
        leaving = time.monotonic()
    assert time.monotonic() - leaving < FLUSH_S + 4  # the exporter itself tries for ten seconds


PROBE = """
import json, os, sys
import amiss_serving.server
from amiss_serving.tracing import NO_TRACER, choose_tracer
tracer = choose_tracer(None, os.environ)
print(json.dumps([tracer is NO_TRACER, "opentelemetry.sdk" in sys.modules]))
"""


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:1"])
def test_without_an_endpoint_nothing_is_loaded(endpoint: str | None) -> None:
    """The SDK is imported, and a real tracer made, when the variable is set, and else not."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else {}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE],
        env={"PYTHONPATH": ":".join(sys.path), **variables},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == ([False, True] if endpoint else [True, False])


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_opentelemetrys_switches_turn_traces_off(environ: dict[str, str]) -> None:
    """No endpoint, the SDK disabled, or no exporter for traces: nothing is traced."""
    assert choose_tracer(None, environ) is NO_TRACER


@pytest.mark.parametrize(
    ("endpoint", "environ", "message"),
    [
        ("collector:4318", {}, "must begin with http"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector"}, "must begin with http"),
        (
            None,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "must be 'http/protobuf', got 'grpc'",
        ),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused(
    endpoint: str | None, environ: dict[str, str], message: str
) -> None:
    """What is no URL, or speaks another protocol, is refused by name and not ignored."""
    with pytest.raises(BadInput, match=message):
        choose_tracer(endpoint, environ)
