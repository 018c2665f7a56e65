"""What surrounds every HTTP request: its id, the token, the error table, the line in the log."""

import asyncio
from collections.abc import Collection

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from amiss_export.errors import AmissError, BadInput
from amiss_serving import errors
from amiss_serving.auth import Gate
from amiss_serving.http_messages import ErrorAnswer
from amiss_serving.service import OTHER, Call, Service

METHODS = frozenset({"Score", "ListDetectors", "GetDetector"})
CALLER_GONE = 499  # nginx's number: nobody is left to read it but the log
STATUS: dict[type[Exception], int] = {
    BadInput: 400,
    errors.Unauthenticated: 401,
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
        method = route if route in METHODS else OTHER
        call = self._service.open("http", method, headers.get("x-request-id"))
        scope.setdefault("state", {})["call"] = call
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = call.request_id
            await send(message)

        try:
            if route not in self._open_routes:
                self._gate.check(headers.get("authorization"))
            await self.app(scope, receive, send_on)
        except asyncio.CancelledError:  # by uvicorn alone, when the time to drain is over
            if not status:
                late = errors.NotReady("the service stopped before it had an answer")
                await error_response(late, call)(scope, receive, send_on)
        except Exception as error:
            if not status:
                await error_response(error, call)(scope, receive, send_on)
        finally:
            call.close(str(status), quiet=method == OTHER and status < 400)

    def _route(self, scope: Scope) -> str:
        """Name of the route that will answer, as the router sees it; '' when none will."""
        for route in self.app.routes:
            if route.matches(scope)[0] is Match.FULL:
                return str(getattr(route, "name", ""))
        return ""


async def answer_error(request: Request, error: Exception) -> Response:
    """The handler for every exception of an application inside the door."""
    return error_response(error, request.state.call)


def error_response(error: Exception, call: Call) -> Response:
    """The error as JSON, by the table; what is not in it is logged in full, answered in general."""
    status, call.error = _status(error, call)
    return Response(
        msgspec.json.encode(ErrorAnswer(error=call.error, request_id=call.request_id)),
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
