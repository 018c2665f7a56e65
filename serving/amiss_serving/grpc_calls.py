"""Unary RPCs that are answered by callback, so that no thread waits for the model.

grpcio's server in Python keeps a thread for every RPC until it is answered, and spends twice a
small model's time on each in its own bookkeeping (ADR 0007 has the figures). `CallbackRpc` does
with grpcio's core what that server does with it, and no more: it takes the call as it came in,
reads the request and sends the response from whichever thread has it. `grpc_loop.py` makes them.
"""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc

from amiss_serving.grpc_internals import STATUS_CODES, cygrpc

Metadata = tuple[tuple[str, str | bytes], ...]
if TYPE_CHECKING:  # which alone knows it as generic
    RpcHandler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    RpcHandler = grpc.RpcMethodHandler

_NO_DEADLINE_S = 1e8  # what is left of a deadline that the caller did not set is beyond this
logger = logging.getLogger(__name__)


class Rpc(Protocol):
    """One unary RPC, to be answered once, from any thread."""

    def invocation_metadata(self) -> Metadata:
        """What came with the request."""

    def time_left_s(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""

    def add_callback(self, ended: Callable[[], None]) -> bool:
        """Call `ended`, from any thread, should the caller leave; False when the RPC is over."""

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """What goes with the status."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status, unless it is OK."""

    def set_details(self, details: str) -> None:
        """Why the status is not OK."""

    def respond(self, response: bytes | None) -> None:
        """Send the response, or none once code and details are set; nobody, when none is there."""


Begin = Callable[[bytes, Rpc], None]


class CallbackRpc:
    """An RPC on grpcio's core. Its three completions are what `grpc._server` calls tags."""

    __slots__ = (
        "_begin",
        "_call",
        "_code",
        "_deadline_s",
        "_details",
        "_due",
        "_ended",
        "_is_cancelled",
        "_is_over",
        "_lock",
        "_metadata",
        "_trailers",
    )

    def __init__(self, event: Any, begin: Begin) -> None:
        self._call = event.call
        self._deadline_s: float = event.call_details.deadline
        self._metadata: Metadata = event.invocation_metadata
        self._begin = begin
        self._code = cygrpc.StatusCode.ok
        self._details = b""
        self._trailers: Metadata | None = None
        self._ended: Callable[[], None] | None = None
        self._lock = threading.Lock()  # guards what follows
        self._due = 2  # completions that are yet to come: of the two operations in `receive`
        self._is_cancelled = False  # by the caller, its deadline or the server
        self._is_over = False  # answered

    def receive(self) -> None:
        """Ask for the request; `begin` is called with it."""
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self._closed)
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._received)

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_left_s(self) -> float | None:
        return _time_left_s(self._deadline_s - time.time())

    def add_callback(self, ended: Callable[[], None]) -> bool:
        with self._lock:
            if self._is_cancelled or self._is_over:
                return False
            self._ended = ended
            return True

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._trailers = metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = STATUS_CODES[code]

    def set_details(self, details: str) -> None:
        self._details = details.encode()

    def respond(self, response: bytes | None) -> None:
        operations = [
            cygrpc.SendInitialMetadataOperation(None, 0),
            cygrpc.SendStatusFromServerOperation(self._trailers, self._code, self._details, 0),
        ]
        if response is not None:
            operations.append(cygrpc.SendMessageOperation(response, 0))
        with self._lock:
            if self._is_cancelled or self._is_over:
                return
            self._call.start_server_batch(operations, self._sent)
            self._is_over = True
            self._due += 1

    def _received(self, event: Any) -> tuple[Any, tuple[()]]:
        request = event.batch_operations[0].message()
        try:
            if request is not None:
                self._begin(request, self)
            else:
                self._fail(grpc.StatusCode.UNIMPLEMENTED, "expected one request message, got none")
        except Exception:  # it would end the thread that all RPCs come in on
            logger.exception("an RPC could not be begun")
            self._fail(grpc.StatusCode.INTERNAL, "internal error")
        return self._completed(), ()

    def _closed(self, event: Any) -> tuple[Any, tuple[Callable[[], None], ...]]:
        if event.batch_operations[0].cancelled():
            with self._lock:
                self._is_cancelled = True
        ended = self._ended if self._is_cancelled else None
        return self._completed(), () if ended is None else (ended,)

    def _sent(self, _: Any) -> tuple[Any, tuple[()]]:
        return self._completed(), ()

    def _completed(self) -> "CallbackRpc | None":
        """Itself, once nothing more is to come, so that grpcio's server forgets it."""
        with self._lock:
            self._due -= 1
            if self._due:
                return None
        self._ended = None
        return self

    def _fail(self, code: grpc.StatusCode, details: str) -> None:
        self.set_code(code)
        self.set_details(details)
        self.respond(None)


class ContextRpc:
    """An RPC over grpcio's documented context."""

    def __init__(
        self, context: grpc.ServicerContext, respond: Callable[[bytes | None], None]
    ) -> None:
        self._context = context
        self.respond = respond
        self.invocation_metadata = context.invocation_metadata
        self.add_callback = context.add_callback
        self.set_trailing_metadata = context.set_trailing_metadata
        self.set_code = context.set_code
        self.set_details = context.set_details

    def time_left_s(self) -> float | None:
        return _time_left_s(self._context.time_remaining())


def waiting_handler(begin: Begin) -> RpcHandler:
    """A unary RPC in grpcio's documented way: a thread of its server waits for the response."""

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        answered: SimpleQueue[bytes | None] = SimpleQueue()
        if not context.add_callback(lambda: answered.put(None)):  # over: nobody will respond
            return b""
        begin(request, ContextRpc(context, answered.put))
        return answered.get() or b""

    return grpc.unary_unary_rpc_method_handler(handle)


def _time_left_s(left_s: float | None) -> float | None:
    return None if left_s is None or left_s > _NO_DEADLINE_S else max(left_s, 0)
