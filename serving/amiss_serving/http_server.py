"""The HTTP door: scoring and listing as JSON, documents and health. It only translates."""

from importlib.metadata import version as installed_version
from typing import Any

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from amiss_export.errors import AmissError
from amiss_serving import oip_http
from amiss_serving.auth import Gate
from amiss_serving.docs_page import CONTENT_SECURITY_POLICY, docs_page
from amiss_serving.http_body import FIELD, read_images, read_json, unless_gone
from amiss_serving.http_door import HttpDoor, answer_error
from amiss_serving.http_messages import (
    StatusAnswer,
    detector_answer,
    detectors_answer,
    json_decoder,
    schemas,
    score_answer,
)
from amiss_serving.inputs import Decoded, Limits, Spec, from_images
from amiss_serving.service import Answer, Ask, Call, Service, aside

OPEN_ROUTES = ("healthz", "readyz", *oip_http.OPEN_ROUTES)
HANDLED = (AmissError, HTTPException, RequestValidationError, ClientDisconnect, Exception)
DESCRIPTION = (
    "Says when something is amiss: scores rows and images with trained detectors. With a token "
    "set, send 'Authorization: Bearer TOKEN' everywhere but to /healthz, /readyz and /v2/health. "
    "Below /v2 is the Open Inference Protocol, as Triton's clients speak it."
)
ERRORS = {
    400: "Bad input: what was expected, what arrived, what to do.",
    401: "No token, or not the right one.",
    404: "No such detector, version or label.",
    413: "Too many bytes or rows.",
    429: "The queue is full; retry after the seconds in Retry-After.",
    500: "Something unexpected; the log has it under the request id.",
    503: "No detector is loaded, or the service is draining.",
    504: "The deadline passed.",
}
SCORE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ScoreBody"},
                "example": '{"records": [{"age": 31, "colour": "red"}]}',
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                },
                "example": f"curl -F {FIELD}=@a.png -F {FIELD}=@b.png",
            },
        },
    }
}
RECONSTRUCTION = Query(False, description="Also answer what the detector expected to see.")


def build_http_app(service: Service, gate: Gate) -> HttpDoor:
    """The application of the HTTP port."""
    app = FastAPI(
        title="Amiss",
        version=installed_version("amiss"),
        description=DESCRIPTION,
        openapi_url=None,  # FastAPI's own pages load scripts from another host: see _add_documents
        exception_handlers=dict.fromkeys(HANDLED, answer_error),
    )
    app.router.routes[:0] = oip_http.oip_routes(service)  # first: the hot route is found at once
    _add_scoring(app, service)
    _add_listing(app, service)
    _add_health(app, service)
    _add_documents(app)
    return HttpDoor(app, service=service, gate=gate, open_routes=OPEN_ROUTES)


def build_metrics_app(service: Service, gate: Gate) -> HttpDoor:
    """The application of the metrics port: /metrics for Prometheus."""

    async def metrics(_: Request) -> Response:
        headers = {"content-type": CONTENT_TYPE_LATEST}
        return Response(generate_latest(service.metrics.registry), headers=headers)

    app = Starlette(
        routes=[Route("/metrics", metrics)],
        exception_handlers=dict.fromkeys(HANDLED, answer_error),
    )
    return HttpDoor(app, service=service, gate=gate)


def _add_scoring(app: FastAPI, service: Service) -> None:
    async def answer(request: Request, name: str, version: str, *, reconstruct: bool) -> Response:
        call: Call = request.state.call
        service.admit(call, name, version)
        decode, size_bytes = await _read(request, service)
        answer = await unless_gone(
            request,
            service.score(call, Ask(name, version, decode, size_bytes, reconstruct=reconstruct)),
        )
        with call.phase("encode"):
            body = await aside(_answer_bytes(answer), score_answer, answer)
        return Response(body, media_type="application/json")

    documents: dict[str, Any] = {
        "name": "Score",
        "openapi_extra": SCORE_BODY,
        "responses": _responses("ScoreAnswer"),
        "tags": ["scoring"],
    }

    @app.post(
        "/v1/detectors/{name}:score", summary="Score rows or images with a detector.", **documents
    )
    async def score(request: Request, name: str, reconstruction: bool = RECONSTRUCTION) -> Response:
        return await answer(request, name, "", reconstruct=reconstruction)

    @app.post(
        "/v1/detectors/{name}/versions/{version}:score",
        summary="Score with one version, by number or label.",
        **documents,
    )
    async def score_version(
        request: Request, name: str, version: str, reconstruction: bool = RECONSTRUCTION
    ) -> Response:
        return await answer(request, name, version, reconstruct=reconstruction)


def _add_listing(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/detectors",
        name="ListDetectors",
        summary="Every detector that can be asked, and what was refused.",
        responses=_responses("DetectorsAnswer"),
    )
    async def list_detectors() -> Response:
        repository = service.repository
        return _json(detectors_answer(repository.detectors(), repository.refused))

    @app.get(
        "/v1/detectors/{name}",
        name="GetDetector",
        summary="What one detector expects and how it decides.",
        responses=_responses("DetectorAnswer"),
    )
    async def get_detector(request: Request, name: str, version: str = "") -> Response:
        detector = request.state.call.found(service.repository.resolve(name, version))
        return _json(detector_answer(detector))


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get(
        "/healthz",
        name="healthz",
        summary="Whether the process answers and no model hangs; if not, it wants a restart.",
        responses=_responses("StatusAnswer"),
    )
    @app.head("/healthz", name="healthz", include_in_schema=False)
    async def healthz() -> Response:
        service.check_alive()
        return _json(StatusAnswer("alive"))

    @app.get(
        "/readyz",
        name="readyz",
        summary="Whether rows may be sent here: loaded, not draining, no model hangs; if not, why.",
        responses=_responses("StatusAnswer"),
    )
    @app.head("/readyz", name="readyz", include_in_schema=False)
    async def readyz() -> Response:
        service.check_ready()
        return _json(StatusAnswer("ready"))


def _add_documents(app: FastAPI) -> None:
    """/openapi.json and /docs, for the routes that the application has by now."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own; ours are 400
    document["components"] = {
        "schemas": schemas(),
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{"token": []}]
    page, encoded = docs_page(document), msgspec.json.encode(document)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        headers = {"content-security-policy": CONTENT_SECURITY_POLICY}
        return HTMLResponse(page, headers=headers)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(encoded, media_type="application/json")


async def _read(request: Request, service: Service) -> tuple[Any, int]:
    """What decodes the body, and how many bytes it is."""
    limits, timeout_s = service.limits, service.default_timeout_s
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = await read_json(request, max_bytes=limits.max_bytes, timeout_s=timeout_s)
        return json_decoder(body), len(body)
    images = await read_images(
        request,
        max_bytes=limits.max_bytes,
        max_images=limits.max_rows,
        timeout_s=timeout_s,
    )

    def decode(spec: Spec, limits: Limits) -> Decoded:
        return from_images(images, spec, limits)

    return decode, sum(map(len, images))


def _answer_bytes(answer: Answer) -> int:
    """About how long the JSON will be: some eighty characters a row, ten a reconstructed value."""
    scored = answer.scored
    values = 0 if scored.reconstruction is None else scored.reconstruction.size
    return 80 * len(scored.verdicts.score) + 10 * values


def _json(message: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(message), media_type="application/json")


def _responses(message: str) -> dict[int | str, dict[str, Any]]:
    def content(name: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    answers: dict[int | str, dict[str, Any]] = {
        s: {"description": d, "content": content("ErrorAnswer")} for s, d in ERRORS.items()
    }
    return {200: {"description": "The answer.", "content": content(message)}, **answers}
