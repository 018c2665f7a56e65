"""What surrounds every HTTP request: its id, the token, the error table, the line in the log."""

import asyncio
import re
from collections.abc import Collection

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Message, Receive, Scope, Send

from amiss.oip import open_inference_pb2 as pb
from amiss_export.errors import AmissError, BadInput
from amiss_serving import errors
from amiss_serving.auth import Gate
from amiss_serving.http_messages import ErrorAnswer
from amiss_serving.service import OTHER, Call, Service

INFERENCE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
METHODS = frozenset({"Score", "ListDetectors", "GetDetector", *INFERENCE.methods_by_name})
PROBES = frozenset({OTHER, "ServerLive", "ServerReady", "ModelReady"})
_OIP = re.compile("/v2(/|$)")
CALLER_GONE = 499  # nginx's number: nobody is left to read it but the log
STATUS: dict[type[Exception], int] = {
    BadInput: 400,
    errors.Unauthenticated: 401,
    errors.SwitchedOff: 403,
    errors.LoadFailed: 400,
    errors.DetectorNotFound: 404,
    errors.NoSuchMethod: 404,
    errors.TooLarge: 413,
    errors.QueueFull: 429,
    errors.NotReady: 503,
    errors.DeadlineExceeded: 504,
    errors.CallerGone: CALLER_GONE,
    AmissError: 500,
}
HEADERS: dict[type[Exception], dict[str, str]] = {
    errors.Unauthenticated: {"www-authenticate": "Bearer"},
    errors.QueueFull: {"retry-after": "1"},
    errors.NotReady: {"retry-after": "1"},
}


class HttpDoor:
    """An ASGI application around another. Routes not named open are closed, and so is no route."""

    def __init__(
        self, app: Starlette, *, service: Service, gate: Gate, open_routes: Collection[str] = ()
    ) -> None:
        self.app = app
        self._service = service
        self._gate = gate
        self._open_routes = frozenset(open_routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, headers = self._route(scope), Headers(scope=scope)
        name = str(getattr(route, "name", ""))
        method = name if name in METHODS else OTHER
        span = self._service.tracer.http(scope, str(getattr(route, "path", "")))
        call = self._service.open("http", method, headers.get("x-request-id"), span)
        scope.setdefault("state", {})["call"] = call
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = call.request_id
            await send(message)

        try:
            if name not in self._open_routes:
                self._gate.check(headers.get("authorization"))
            # A plain route needs nothing of what FastAPI has around its own: a quarter of its time.
            answer = route.handle if type(route) is Route else self.app
            await answer(scope, receive, send_on)
        except asyncio.CancelledError:  # by uvicorn alone, when the time to drain is over
            if not status:
                late = errors.NotReady("the service stopped before it had an answer")
                await error_response(late, call, path=scope["path"])(scope, receive, send_on)
        except Exception as error:
            if not status:
                await error_response(error, call, path=scope["path"])(scope, receive, send_on)
        finally:
            call.close(str(status), quiet=method in PROBES and status < 400)

    def _route(self, scope: Scope) -> BaseRoute | None:
        """The route that will answer, as the router sees it; None when none will."""
        for route in self.app.routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return route
        return None


async def answer_error(request: Request, error: Exception) -> Response:
    """The handler for every exception of an application inside the door."""
    return error_response(error, request.state.call, path=request.scope["path"])


def error_response(error: Exception, call: Call, *, path: str) -> Response:
    """The error as JSON, by the table; what is not in it is logged in full, answered in general.

    The Open Inference Protocol has nothing but the error in it; the header has the id there, too.
    """
    status, call.error = _status(error, call)
    whole = ErrorAnswer(error=call.error, request_id=call.request_id)
    return Response(
        msgspec.json.encode({"error": call.error} if _OIP.match(path) else whole),
        status_code=status,
        headers=error.headers if isinstance(error, HTTPException) else HEADERS.get(type(error)),
        media_type="application/json",
    )


def _status(error: Exception, call: Call) -> tuple[int, str]:
    match error:
        case HTTPException():
            return error.status_code, f"{error.detail}; /docs lists what there is"
        case RequestValidationError():
            first = error.errors()[0]
            return 400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        case ClientDisconnect():
            return CALLER_GONE, "the caller hung up"
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind], str(error)
    return 500, call.explain(error)
