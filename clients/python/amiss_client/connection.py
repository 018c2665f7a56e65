"""Where the service is and how it is asked: address, token, deadline, retries and sizes."""

import json
import math
import os
import uuid
from dataclasses import dataclass, field
from typing import Any, cast

import grpc

from amiss_client.errors import REQUEST_ID, AmissClientError, Failure, InvalidInput, from_failure

TOKEN_VARIABLE = "AMISS_TOKEN"  # noqa: S105 - the name of the variable, not a token
UNIX = "unix:"
RETRY_BUFFER_BYTES = 16 << 20  # a request that does not fit is sent once only

# Scoring changes nothing, so asking twice is safe; UNAVAILABLE alone promises that a second try
# can help. gRPC itself keeps to the deadline and to the number of attempts.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "amiss.v1.ScoringService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@dataclass(frozen=True)
class Attempt:
    """What goes with one request besides its message."""

    timeout_s: float
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    request_id: str


@dataclass(frozen=True)
class Connection:
    """The settings of a client, checked. token: None reads AMISS_TOKEN, "" sends none."""

    address: str
    token: str | None = field(repr=False)
    timeout_s: float
    max_rows_per_request: int
    max_in_flight: int
    is_open: bool = True

    def __post_init__(self) -> None:
        _check_address(self.address)
        for name in ("max_rows_per_request", "max_in_flight"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}")
        _check_timeout(self.timeout_s)

    def attempt(self, timeout_s: float | None) -> Attempt:
        """Deadline, token and a fresh request id for one request."""
        if not self.is_open:
            raise AmissClientError("this client was closed; make another one")
        token = os.environ.get(TOKEN_VARIABLE, "") if self.token is None else self.token
        request_id = uuid.uuid4().hex
        metadata = [(REQUEST_ID, request_id)]
        if token:
            _check_token(token)
            metadata.append(("authorization", f"Bearer {token}"))
        deadline = self.timeout_s if timeout_s is None else _check_timeout(timeout_s)
        return Attempt(deadline, tuple(metadata), request_id)

    def translate(self, error: grpc.RpcError, attempt: Attempt) -> AmissClientError:
        """The error of our tree for gRPC's."""
        return from_failure(
            cast(Failure, error),
            address=self.address,
            sent_id=attempt.request_id,
            timeout_s=attempt.timeout_s,
        )

    def options(self) -> list[tuple[str, Any]]:
        """gRPC channel options."""
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.per_rpc_retry_buffer_size", RETRY_BUFFER_BYTES),
            ("grpc.max_send_message_length", -1),  # requests are cut to size; the service says no
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 5000),  # gRPC's own 2 minutes outlast most restarts
        ]
        if self.address.rsplit(":", 1)[0] in ("127.0.0.1", "localhost", "[::1]"):
            options.append(("grpc.enable_http_proxy", 0))  # a company proxy cannot reach loopback
        return options


def _check_address(address: str) -> None:
    if address.startswith(UNIX) and address != UNIX:
        return
    host, _, port = address.rpartition(":")
    if not host or "//" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInput(f"address must be HOST:PORT or {UNIX}PATH, got {address!r}")


def _check_token(token: str) -> None:
    if not all("!" <= character <= "~" for character in token):  # and never show it
        raise InvalidInput(
            f"the token (token=, or {TOKEN_VARIABLE}) must be printable ASCII without spaces or "
            "line ends: it travels in a header"
        )


def _check_timeout(timeout_s: float) -> float:
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise InvalidInput(f"timeout_s must be a positive number of seconds, got {timeout_s}")
    return timeout_s
