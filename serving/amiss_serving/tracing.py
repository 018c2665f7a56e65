"""What a request tells about itself to traces: nothing, unless a collector is named."""

from collections.abc import Mapping
from typing import Any, Protocol

from amiss_export.errors import BadInput

TRACES_PATH = "/v1/traces"  # of OTLP over HTTP, below a collector's base URL
UNKNOWN = "_OTHER"  # OpenTelemetry's word for a method that nobody wrote
_HTTP = "http/protobuf"


class Span(Protocol):
    """One request, from its arrival to its answer. Moments are on the service's clock."""

    def phase(self, name: str, started_s: float, ended_s: float) -> None:
        """Remember a phase that is over."""

    def end(self, fields: Mapping[str, object], *, started_s: float, ended_s: float) -> str:
        """The id of the trace that the request belongs to; '' when there is none.

        fields: what the log says about it: code, error, detector, version, request_id.
        """


class Tracer(Protocol):
    """Makes spans for the doors."""

    def http(self, scope: Mapping[str, Any], route: str) -> Span:
        """The span of one HTTP request, by its ASGI scope and its route's template, '' for none."""

    def rpc(self, method: str, metadata: Mapping[str, str | bytes]) -> Span:
        """The span of one RPC, by its PACKAGE.SERVICE/METHOD."""

    async def close(self) -> None:
        """Send what is still to be sent, or give up after a moment."""


class _NoSpan:
    def phase(self, name: str, started_s: float, ended_s: float) -> None:
        pass

    def end(self, fields: Mapping[str, object], *, started_s: float, ended_s: float) -> str:
        return ""


NO_SPAN = _NoSpan()


class NoTracer:
    """Traces nothing, and costs nothing: every request shares one span that forgets."""

    def http(self, scope: Mapping[str, Any], route: str) -> Span:
        return NO_SPAN

    def rpc(self, method: str, metadata: Mapping[str, str | bytes]) -> Span:
        return NO_SPAN

    async def close(self) -> None:
        pass


NO_TRACER = NoTracer()


def choose_tracer(endpoint: str | None, environ: Mapping[str, str]) -> Tracer:
    """A tracer for the collector at `endpoint`, or else for the one that environ names.

    endpoint: base URL, e.g. http://localhost:4318. environ: OpenTelemetry's own variables are read.
    Without a collector nothing of its SDK is imported.
    Raises BadInput when the URL or the protocol is not OTLP over HTTP.
    """
    url = f"{endpoint.rstrip('/')}{TRACES_PATH}" if endpoint else _url_in(environ)
    if url is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NO_TRACER
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"trace_endpoint must begin with http:// or https://, got {url!r}")
    try:
        from amiss_serving.otel import OtelTracer  # noqa: PLC0415  only who traces pays for it
    except ImportError as error:
        raise BadInput(
            f"traces need OpenTelemetry ({error}); install it with: pip install 'amiss[serve]'"
        ) from error
    return OtelTracer(url)


def _url_in(environ: Mapping[str, str]) -> str | None:
    """Where traces go by OpenTelemetry's specification of its environment variables."""
    if environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    url = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or (
        f"{base.rstrip('/')}{TRACES_PATH}" if base else None
    )
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", _HTTP
    )
    if url and protocol != _HTTP:
        raise BadInput(
            f"OTEL_EXPORTER_OTLP_PROTOCOL must be {_HTTP!r}, got {protocol!r}; set it, or "
            "OTEL_TRACES_EXPORTER=none for no traces"
        )
    return url
