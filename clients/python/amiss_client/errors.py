"""The one error tree of the client, and the one table from gRPC status to class."""

from collections.abc import Sequence
from typing import Protocol

import grpc

REQUEST_ID, RETRY_AFTER = "x-request-id", "retry-after"


class AmissClientError(Exception):
    """What went wrong and what to do.

    code: name of the gRPC status, e.g. "NOT_FOUND"; empty when the request was never sent.
    request_id: finds the request in the service's log; empty when it was never sent.
    """

    def __init__(self, message: str, *, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


class InvalidInput(AmissClientError):
    """What was sent, or was about to be sent, is not what the detector takes."""


class DetectorNotFound(AmissClientError):
    """The service has no detector of that name, version or label."""


class Unauthenticated(AmissClientError):
    """The service wants a token and got none, or a wrong one."""


class PermissionDenied(AmissClientError):
    """The token is good, but not for this, or the service was started without it."""


class LoadFailed(AmissClientError):
    """A version that was asked for cannot be loaded; what served before serves on."""


class Overloaded(AmissClientError):
    """The service's queue is full. retry_after_s: when it suggests to come back, if it said so."""

    retry_after_s: float | None = None


class Unavailable(AmissClientError):
    """Nothing answers at the address, or the service is starting or draining."""


class DeadlineExceeded(AmissClientError):
    """No answer within timeout_s."""


class ServerError(AmissClientError):
    """The service failed; its log has the reason under the request id."""


CLASS_OF: dict[grpc.StatusCode, type[AmissClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: DetectorNotFound,
    grpc.StatusCode.FAILED_PRECONDITION: LoadFailed,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


class Failure(Protocol):
    """What grpc and grpc.aio errors have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...


def from_failure(
    failure: Failure, *, address: str, sent_id: str, timeout_s: float
) -> AmissClientError:
    """The error of our tree for a failed call. sent_id: used when the service named no id."""
    code, details = failure.code(), failure.details() or ""
    trailers = {key: str(value) for key, value in failure.trailing_metadata() or ()}
    kind = CLASS_OF.get(code, ServerError)
    if kind is Overloaded and RETRY_AFTER not in trailers:
        kind = InvalidInput  # the same status without a time to come back: too large for good
    if kind is Unavailable and REQUEST_ID not in trailers:
        details = (
            f"no Amiss service answers at {address} ({details}); start one with `amiss serve`, "
            "or check host and port (gRPC is on 8001 unless told otherwise)"
        )
    elif kind is DeadlineExceeded:
        details = (
            f"no answer from {address} within {timeout_s:g} s; pass a larger timeout_s, or ask "
            "for fewer rows at a time"
        )
    error = kind(details, code=code.name, request_id=trailers.get(REQUEST_ID, sent_id))
    if isinstance(error, Overloaded):
        error.retry_after_s = _seconds(trailers[RETRY_AFTER])
    return error


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
