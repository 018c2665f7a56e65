"""Where the doors listen: TCP ports, and Unix sockets that only their owner may open."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from amiss_export.errors import BadInput

BACKLOG = 1024
UNIX = "unix:"  # what gRPC, curl's users and our client write before such a path
_OWNER_ONLY = 0o600
_MOST_PATH_BYTES = 107 - len(".4194304")  # the kernel's limit, less the suffix of the draft
_PROBE_S = 1.0

T = TypeVar("T")


def listen_tcp(host: str, port: int, *, option: str) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises BadInput naming the option."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BadInput(f"host {host!r} is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else answers wait 40 ms
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error}"
        raise BadInput(
            f"port {port} on {host} {reason}; stop what listens there, or choose another with "
            f"{option}"
        ) from error
    return listener


def listen_unix(path: str) -> socket.socket:
    """A socket that listens at a path where nothing is yet."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


@contextmanager
def unix_socket(path: str, bind: Callable[[str], T], *, option: str) -> Iterator[T]:
    """What bind(draft) returns, its socket at `path` with mode 0600 until the context ends.

    bind listens at a draft beside it, which is then renamed: nobody meets a socket that is too
    open or that does not listen yet, and what a dead process left behind is replaced. (gRPC would
    replace a living one's as well, and later remove whatever lies at the path it was given.)
    Raises BadInput naming the option: something answers at the path, or it is no socket.
    """
    _check_free(path, option)
    draft = Path(f"{path}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)  # of an earlier process with this number
        bound = bind(str(draft))
        draft.chmod(_OWNER_ONLY)
        ours = _identity(draft)
        draft.rename(path)
    except (OSError, RuntimeError) as error:  # the latter is gRPC's
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise BadInput(f"{option} {path} cannot be bound: {error}; choose another") from error
    try:
        yield bound
    finally:
        with suppress(OSError):
            if _identity(Path(path)) == ours:  # not one that took the place since
                Path(path).unlink()


def address_of(listener: socket.socket, host: str, *, path: str | None = None) -> str:
    """Where callers find it: unix:PATH, or HOST:PORT with a host that holds colons in brackets."""
    if path is not None:
        return f"{UNIX}{path}"
    port = listener.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from any other, whoever changes its mode: inode numbers are used again."""
    about = path.stat()
    return about.st_ino, about.st_mtime_ns


def _check_free(path: str, option: str) -> None:
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        raise BadInput(f"{option} may have {_MOST_PATH_BYTES} bytes, got {path!r}; shorten it")
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadInput(f"{option} {path} cannot be used: {error}") from error
    if not stat.S_ISSOCK(mode):
        raise BadInput(f"{option} {path} is there and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # its process is dead
            return
        except OSError:  # too busy to answer, or not ours to ask: not ours to replace either
            pass
    raise BadInput(
        f"{option} {path} is in use; stop what listens there, or choose another with {option}"
    )
