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
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
_NEEDED = ("_Context", "_receive_message", "_status", "_RECEIVE_MESSAGE_TOKEN")


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
            if request is not None:
                behavior(request, _server._Context(rpc_event, state, None), respond)
            return finished

        with state.condition:
            rpc_event.call.start_server_batch((_cygrpc.ReceiveMessageOperation(0),), received)
            state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
        return _BEGUN


_POOL = _CallbackPool(max_workers=1)
_BEGUN: "Future[Any]" = Future()
_BEGUN.set_result(None)
