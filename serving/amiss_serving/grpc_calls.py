"""Unary RPCs that are answered by callback, so that no thread waits for the model.

grpcio has two servers in Python: one that keeps a thread for every RPC until it is answered, and
one on asyncio that spends several times a small model's own time on each RPC (ADR 0007 has the
figures). The threaded one hands every RPC to a pool of threads. `_CallbackPool` takes it there,
reads the request and sends the response from whichever thread has it, with the functions that
grpcio itself does so with. They are internal to grpcio: where they are not as we know them, a
thread waits after all, as documented.
"""

import importlib
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, TypeAlias

import grpc

RpcContext = grpc.ServicerContext
# Generic to the type checker only: hence the quotes.
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Respond = Callable[[bytes | None], None]
Begin = Callable[[bytes, RpcContext, Respond], None]

_server: Any = importlib.import_module("grpc._server")
_cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")
_POOL_PARAMETERS = (
    "rpc_event",
    "state",
    "behavior",
    "argument_thunk",
    "request_deserializer",
    "response_serializer",
)
_NEEDED = (
    "_Context",
    "_abort",
    "_get_initial_metadata_operation",
    "_is_rpc_state_active",
    "_possibly_finish_call",
    "_receive_message",
    "_status",
    "_RECEIVE_MESSAGE_TOKEN",
    "_SEND_MESSAGE_TOKEN",
)
_NO_DEADLINE_S = 1e8  # what grpcio says is left when the caller set none is beyond this
logger = logging.getLogger(__name__)


def callback_handler(begin: Begin) -> RpcHandler:
    """A unary RPC of bytes: begin(request, context, respond) is called for each and must not block.

    respond is called once, from any thread: with the response, or with None once the code and the
    details are set in the context. It does nothing when the caller has gone.
    """
    if not is_supported():
        return grpc.unary_unary_rpc_method_handler(_waiting(begin))

    def behavior(request: bytes, context: RpcContext, respond: Respond) -> None:
        begin(request, context, respond)

    behavior.experimental_thread_pool = _POOL  # type: ignore[attr-defined]  # where grpcio looks
    return grpc.unary_unary_rpc_method_handler(behavior)


def time_left_s(context: RpcContext) -> float | None:
    """Seconds until the caller's deadline; None without one."""
    left = context.time_remaining()
    return None if left is None or left > _NO_DEADLINE_S else left


def send(context: RpcContext, message: bytes, sent: Callable[[], None]) -> None:
    """Send one message of a stream; `sent` is called, from any thread, when it is on its way.

    It is also called when the caller has gone. Where grpcio is not as we know it, raises
    NotImplementedError.
    """
    if not is_supported():
        raise NotImplementedError
    state: Any = context._state  # type: ignore[attr-defined]
    call: Any = context._rpc_event.call  # type: ignore[attr-defined]

    def done(_: Any) -> Any:
        with state.condition:
            finished = _server._possibly_finish_call(state, _server._SEND_MESSAGE_TOKEN)
        sent()
        return finished

    with state.condition:
        is_active = _server._is_rpc_state_active(state)
        if is_active:
            operations = [_cygrpc.SendMessageOperation(message, 0)]
            if state.initial_metadata_allowed:
                operations.insert(0, _server._get_initial_metadata_operation(state, None))
                state.initial_metadata_allowed = False
            call.start_server_batch(operations, done)
            state.due.add(_server._SEND_MESSAGE_TOKEN)
    if not is_active:
        sent()


@lru_cache(maxsize=1)
def is_supported() -> bool:
    """Whether this grpcio has the functions we know, with the parameters we know."""
    pool = getattr(_server, "_unary_response_in_pool", None)
    return (
        pool is not None
        and tuple(inspect.signature(pool).parameters) == _POOL_PARAMETERS
        and hasattr(_server, "_select_thread_pool_for_behavior")
        and all(hasattr(_server, name) for name in _NEEDED)
    )


def _waiting(begin: Begin) -> Callable[[bytes, RpcContext], bytes]:
    """The documented way: a thread of the server's pool waits for the response."""

    def handle(request: bytes, context: RpcContext) -> bytes:
        answered: SimpleQueue[bytes | None] = SimpleQueue()
        context.add_callback(lambda: answered.put(None))  # cancelled: nobody will respond
        begin(request, context, answered.put)
        return answered.get() or b""

    return handle


class _CallbackPool(ThreadPoolExecutor):
    """What grpcio takes for a pool of threads, and is none: it begins RPCs where they arrive."""

    def submit(self, *work: Any, **_: Any) -> "Future[Any]":
        """An RPC as grpcio hands it over: context.run, the function for a pool, its arguments."""
        _run, _in_pool, rpc_event, state, behavior, *_rest = work
        receive = _server._receive_message(state, rpc_event.call, None)

        def respond(response: bytes | None) -> None:
            _server._status(rpc_event, state, response)

        def received(event: Any) -> Any:
            finished = receive(event)
            request, state.request = state.request, None
            try:
                if request is not None:
                    behavior(request, _server._Context(rpc_event, state, None), respond)
                else:
                    abort("unimplemented", b"expected one request message, got none")
            except Exception:  # it would end grpcio's only thread, and with it the service
                logger.exception("an RPC could not be begun")
                abort("internal", b"internal error")
            return finished

        def abort(code: str, details: bytes) -> None:
            with state.condition:
                if _server._is_rpc_state_active(state):
                    code = getattr(_cygrpc.StatusCode, code)
                    _server._abort(state, rpc_event.call, code, details)

        with state.condition:
            rpc_event.call.start_server_batch((_cygrpc.ReceiveMessageOperation(0),), received)
            state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
        return _BEGUN


_POOL = _CallbackPool(max_workers=1)
_BEGUN: "Future[Any]" = Future()
_BEGUN.set_result(None)
