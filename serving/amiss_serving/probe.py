"""The image's HEALTHCHECK, `python -m amiss_serving.probe`: whether the service here is ready.

It needs the standard library alone, and takes the address from the same variables as `amiss serve`:
AMISS_HOST and AMISS_HTTP_PORT, or AMISS_HTTP_SOCKET.
"""

import os
import socket
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import TextIO

_TIMEOUT_S = 4
_REACHED_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def main(environ: Mapping[str, str] = os.environ, out: TextIO = sys.stdout) -> int:
    """Exit code: 0 ready, 1 not. `out` gets one line: what the service says, or why it does not."""
    try:
        status, answer = _ask(_connection(environ))
    except (OSError, HTTPException, ValueError) as error:
        print(f"no answer: {error}", file=out)
        return 1
    print(answer, file=out)
    return 0 if status == 200 else 1


def _connection(environ: Mapping[str, str]) -> HTTPConnection:
    path = environ.get("AMISS_HTTP_SOCKET")
    if path:
        return _UnixConnection(path)
    host = environ.get("AMISS_HOST", "")
    port = int(environ.get("AMISS_HTTP_PORT") or 8000)
    return HTTPConnection(_REACHED_AT.get(host, host), port, timeout=_TIMEOUT_S)


def _ask(connection: HTTPConnection) -> tuple[int, str]:
    """Status and body of /readyz."""
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, response.read(1000).decode(errors="replace").strip()
    finally:
        connection.close()


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


if __name__ == "__main__":
    sys.exit(main())
