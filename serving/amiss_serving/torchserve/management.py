"""What the management port tells and does: a model's workers, new ones, new keys."""

import http.client
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from amiss_export.errors import AmissError
from amiss_serving.torchserve.config import HOST

_PATIENCE_S = 5.0
_READY = "READY"  # beside LOADING and, for a dead worker, UNLOADING


class NoSuchModel(AmissError):
    """TorchServe runs, and has not loaded the model."""


class Unreachable(AmissError):
    """The management port does not answer, or not with what was asked for."""


@dataclass(frozen=True)
class Worker:
    """One process of a model. pid: 0 until it has one."""

    id: str
    pid: int
    is_ready: bool


class Management:
    """The management API on a port of loopback."""

    def __init__(self, port: int, *, patience_s: float = _PATIENCE_S) -> None:
        self._port = port
        self._patience_s = patience_s

    def workers(self, model: str, key: str) -> tuple[Worker, ...]:
        """The model's workers now. Raises NoSuchModel and Unreachable."""
        body = self._ask("GET", f"/models/{quote(model)}", key)
        try:
            return tuple(
                Worker(str(worker["id"]), int(worker["pid"]), worker["status"] == _READY)
                for worker in json.loads(body)[0]["workers"]
            )
        except (ValueError, LookupError, TypeError) as error:
            raise Unreachable(f"TorchServe's answer cannot be read: {body[:200]!r}") from error

    def scale(self, model: str, workers: int, key: str) -> None:
        """Have the model run by so many workers. Returns before they are there."""
        query = f"min_worker={workers}&max_worker={workers}"
        self._ask("PUT", f"/models/{quote(model)}?{query}", key)

    def renew(self, kind: str, api_key: str) -> None:
        """Have a new key of the kind, management or inference, written to the key file."""
        self._ask("GET", f"/token?type={kind}", api_key)

    def _ask(self, method: str, path: str, key: str) -> bytes:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=self._patience_s)
        try:
            connection.request(method, path, headers={"authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"TorchServe's management port does not answer: {error!r}") from error
        finally:
            connection.close()
        if answer.status == HTTPStatus.NOT_FOUND:
            raise NoSuchModel(f"TorchServe has no model for {method} {path}: {_said(body)}")
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise Unreachable(f"TorchServe refused {method} {path}: {_said(body)}")
        return body


def _said(body: bytes) -> str:
    try:
        message: Any = json.loads(body)["message"]
    except (ValueError, TypeError, KeyError):
        return body.decode(errors="replace")[:200]
    return str(message)
