"""Traces by OpenTelemetry: one server span a request, a child for each phase, sent over OTLP/HTTP.

A span is made when its request is answered, from the moments that were noted on the way: while
rows are scored nothing of OpenTelemetry runs. Names and attributes are those of its semantic
conventions for HTTP and RPC (opentelemetry.io/docs/specs/semconv, 1.39 and later). Sampling is
the parent's choice, or OTEL_TRACES_SAMPLER's; headers, timeout and the like are read from OTEL_*.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version as installed_version
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers

from amiss_serving.tracing import UNKNOWN, Span

FLUSH_S = 2.0  # a collector that is gone must not hold up the end of the service
HTTP_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
# Of the codes that a server answers, those that are its own fault.
RPC_FAILURES = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_OURS = ("request_id", "detector", "version")
_W3C = TraceContextTextMapPropagator()

Described = tuple[str, dict[str, str | int], bool]


class OtelTracer:
    """Sends spans in batches, from a thread of its own, to the collector at the URL."""

    def __init__(self, url: str) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "amiss"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("amiss_serving", installed_version("amiss"))

    def http(self, scope: Mapping[str, Any], route: str) -> Span:
        """The span of one HTTP request."""
        headers = Headers(raw=scope["headers"])
        return _Request(self._tracer, headers, lambda code: _describe_http(scope, route, code))

    def rpc(self, method: str, metadata: Mapping[str, str | bytes]) -> Span:
        """The span of one RPC."""
        return _Request(self._tracer, metadata, lambda code: _describe_rpc(method, code))

    async def close(self) -> None:
        """Send the last spans; those that take longer than FLUSH_S are lost."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        end_s = time.monotonic() + FLUSH_S
        while flushing.is_alive() and time.monotonic() < end_s:
            await asyncio.sleep(0.01)


class _Request:
    """What is known of one request until it ends. describe(code) gives name, attributes, failed."""

    def __init__(
        self,
        tracer: Tracer,
        headers: Mapping[str, str | bytes],
        describe: Callable[[str], Described],
    ) -> None:
        self._tracer = tracer
        self._headers = headers
        self._describe = describe
        self._phases: list[tuple[str, float, float]] = []

    def phase(self, name: str, started_s: float, ended_s: float) -> None:
        self._phases.append((name, started_s, ended_s))

    def end(self, fields: Mapping[str, object], *, started_s: float, ended_s: float) -> str:
        code, now_ns = str(fields["code"]), time.time_ns()

        def wall_ns(moment_s: float) -> int:
            return now_ns - int((ended_s - moment_s) * 1e9)

        name, attributes, failed = self._describe(code)
        attributes |= {f"amiss.{key}": str(fields[key]) for key in _OURS if fields[key]}
        if failed:
            attributes["error.type"] = code
        span = self._tracer.start_span(
            name,
            context=_W3C.extract(self._headers, Context()),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=wall_ns(started_s),
        )
        if span.is_recording():
            inside = set_span_in_context(span)
            for phase, began_s, over_s in self._phases:
                child = self._tracer.start_span(phase, inside, start_time=wall_ns(began_s))
                child.end(wall_ns(over_s))
            if failed:
                span.set_status(Status(StatusCode.ERROR, str(fields.get("error", ""))))
        span.end(wall_ns(ended_s))
        return format_trace_id(span.get_span_context().trace_id)


def _describe_http(scope: Mapping[str, Any], route: str, code: str) -> Described:
    method = scope["method"] if scope["method"] in HTTP_METHODS else UNKNOWN
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.response.status_code": int(code),
        "network.protocol.version": scope["http_version"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
    }
    if route:
        attributes["http.route"] = route
    verb = "HTTP" if method == UNKNOWN else method
    return f"{verb} {route}".strip(), attributes, not 0 < int(code) < 500


def _describe_rpc(method: str, code: str) -> Described:
    attributes: dict[str, str | int] = {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": code,
    }
    return "grpc" if method == UNKNOWN else method, attributes, code in RPC_FAILURES
