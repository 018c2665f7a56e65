"""The Open Inference Protocol over HTTP: plain routes, since nothing here needs more on its way."""

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from amiss_export.errors import BadInput
from amiss_serving.http_body import read_json, unless_gone
from amiss_serving.oip_documents import (
    model_config,
    model_metadata,
    model_statistics,
    repository_index,
    server_metadata,
)
from amiss_serving.oip_http_body import (
    JSON_LENGTH,
    answer_bytes,
    infer_answer,
    json_length,
    read_infer,
)
from amiss_serving.oip_parameters import check_load_parameters
from amiss_serving.oip_signature import RECONSTRUCTION
from amiss_serving.service import Ask, Call, Service, aside

OPEN_ROUTES = ("ServerLive", "ServerReady")
_MODEL = "/v2/models/{name}"
_VERSION = _MODEL + "/versions/{version}"

T = TypeVar("T")


class IndexBody(msgspec.Struct):
    """What of the repository to list."""

    ready: bool = False


class LoadBody(msgspec.Struct):
    """How to load; nothing can be set."""

    parameters: dict[str, Any] = {}


def oip_routes(service: Service) -> list[Route]:
    """Every route below /v2, the hot one first. Their names are those of the RPCs."""
    door = OipHttp(service)
    return [
        Route(f"{_MODEL}/infer", door.infer, methods=["POST"], name="ModelInfer"),
        Route(f"{_VERSION}/infer", door.infer, methods=["POST"], name="ModelInfer"),
        Route("/v2/health/live", door.live, name="ServerLive"),
        Route("/v2/health/ready", door.ready, name="ServerReady"),
        Route("/v2", door.server, name="ServerMetadata"),
        Route("/v2/models/stats", door.statistics, name="ModelStatistics"),
        *(
            Route(prefix + suffix, answer, name=name)
            for prefix in (_MODEL, _VERSION)
            for suffix, answer, name in (
                ("", door.model, "ModelMetadata"),
                ("/ready", door.model_ready, "ModelReady"),
                ("/config", door.config, "ModelConfig"),
                ("/stats", door.statistics, "ModelStatistics"),
            )
        ),
        Route("/v2/repository/index", door.index, methods=["POST"], name="RepositoryIndex"),
        Route(
            "/v2/repository/models/{name}/load",
            door.load,
            methods=["POST"],
            name="RepositoryModelLoad",
        ),
        Route(
            "/v2/repository/models/{name}/unload",
            door.unload,
            methods=["POST"],
            name="RepositoryModelUnload",
        ),
    ]


class OipHttp:
    """Each method answers one route: request, service, response."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def infer(self, request: Request) -> Response:
        """Scores the rows of one tensor."""
        call: Call = request.state.call
        name, version = request.path_params["name"], request.path_params.get("version", "")
        self._service.admit(call, name, version)
        body = await self._body(request)
        length = json_length(request.headers.get(JSON_LENGTH), len(body))
        asked = await aside(len(body) if length is None else length, read_infer, body, length)
        ask = Ask(
            name=name,
            version=version,
            decode=asked.decode,
            size_bytes=asked.json_bytes,
            timeout_s=asked.timeout_s,
            reconstruct=RECONSTRUCTION in asked.outputs,
        )
        answer = await unless_gone(request, self._service.score(call, ask))
        with call.phase("encode"):
            encoded, head = await aside(answer_bytes(answer, asked), infer_answer, answer, asked)
        if head is None:
            return Response(encoded, media_type="application/json")
        headers = {JSON_LENGTH: str(head)}
        return Response(encoded, headers=headers, media_type="application/octet-stream")

    async def live(self, _: Request) -> Response:
        """Empty, while the process answers and no model hangs."""
        self._service.check_alive()
        return Response()

    async def ready(self, _: Request) -> Response:
        """Empty, when rows can be scored."""
        self._service.check_ready()
        return Response()

    async def server(self, _: Request) -> Response:
        """Name, version and extensions."""
        return _json(server_metadata())

    async def model(self, request: Request) -> Response:
        """What a detector takes and gives."""
        return _json(model_metadata(self._service, self._detector(request)))

    async def config(self, request: Request) -> Response:
        """A detector as load generators see it."""
        return _json(model_config(self._service, self._detector(request)))

    async def model_ready(self, request: Request) -> Response:
        """Whether a detector can score: an error when it cannot."""
        self._detector(request)
        self._service.check_ready()
        return _json({"name": request.path_params["name"], "ready": True})

    async def statistics(self, request: Request) -> Response:
        """Counts and times."""
        name = request.path_params.get("name", "")
        version = request.path_params.get("version", "")
        return _json(model_statistics(self._service, name, version))

    async def index(self, request: Request) -> Response:
        """Every version, and why one does not serve."""
        asked = _decoded(await self._body(request), IndexBody)
        return _json(repository_index(self._service.repository, ready=asked.ready))

    async def load(self, request: Request) -> Response:
        """Loads a detector, or loads it anew."""
        check_load_parameters(_decoded(await self._body(request), LoadBody).parameters)
        await self._service.repository.load(request.path_params["name"])
        return Response()

    async def unload(self, request: Request) -> Response:
        """Stops serving a detector."""
        await self._service.repository.unload(request.path_params["name"])
        return Response()

    def _detector(self, request: Request) -> Any:
        path = request.path_params
        resolved = self._service.repository.resolve(path["name"], path.get("version", ""))
        request.state.call.found(resolved)
        return resolved

    async def _body(self, request: Request) -> bytes:
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":  # a small body could unpack to any size
            raise BadInput(f"expected a body as it is, got Content-Encoding {encoding!r:.40}")
        return await read_json(
            request,
            max_bytes=self._service.limits.max_bytes,
            timeout_s=self._service.default_timeout_s,
        )


def _decoded(body: bytes, kind: type[T]) -> T:
    """The JSON of a body that may be empty."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"expected a JSON object, or nothing, got: {error}") from error


def _json(document: Any) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")
