"""The thread that RPCs come in on: grpcio's server, its events taken by a loop of our own.

Unary RPCs go to `CallbackRpc`; streams, and what is refused, go on to grpcio's own functions, which
also start and stop the server. They are internal to grpcio: where they are not as we know them,
its own loop runs instead and a thread waits for each RPC, as documented.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from amiss_serving.grpc_calls import Begin, CallbackRpc, Metadata
from amiss_serving.grpc_internals import cygrpc
from amiss_serving.grpc_internals import server as grpcio
from amiss_serving.turn import Turn

Find = Callable[[bytes, Metadata], Begin | None]

_LOOK_UP_S = 1  # without any event, to see whether the server is still wanted
_MOST_EVENTS = 256  # in one turn, however many more there are
_STUCK_S = 0.25  # a run there has then taken sixty times as long as it should
logger = logging.getLogger(__name__)


class RpcLoop:
    """Serves grpcio's server. find: what begins a unary RPC; None leaves it to grpcio."""

    def __init__(self, server: grpc.Server, find: Find, turn: Turn) -> None:
        self._state: Any = server._state  # type: ignore[attr-defined]
        self._find = find
        self._turn = turn
        self._is_over = False

    def start(self) -> None:
        """Return when RPCs are accepted: what grpcio's `_start` does, but for the thread."""
        with self._state.lock:
            self._state.server.start()
            self._state.stage = grpcio._ServerStage.STARTED
            grpcio._request_call(self._state)
        self._begin_thread()

    def relieve(self) -> None:
        """Put another thread in the place of one whose model does not come back."""
        if self._is_over:
            return
        if self._turn.taken_s() > _STUCK_S:
            logger.warning("a model holds up the thread that RPCs come in on; another takes over")
            self._turn.release()
            self._begin_thread()
        elif not self._thread.is_alive():
            logger.error("the thread that RPCs come in on has ended; another takes over")
            self._begin_thread()

    def _begin_thread(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="grpc", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """Take events while there are any, then let the model run on what came in, and again."""
        events = 0
        turn, queue, me = self._turn, self._state.completion_queue, threading.current_thread()
        while self._thread is me and not self._is_over:
            event = queue.poll(0 if turn.is_due else time.time() + _LOOK_UP_S)
            if self._state.server_deallocated:
                grpcio._begin_shutdown_once(self._state)
            if event.completion_type != cygrpc.CompletionType.queue_timeout:
                events += 1
                self._is_over = not self._take(event)
                event = None  # grpcio: one that is kept while polling can spin
                if events < _MOST_EVENTS and not self._is_over:
                    continue
            events = 0
            if turn.is_due and self._thread is me:
                self._run()
        turn.hand_over()  # what the last event brought: the new thread may be asleep

    def _run(self) -> None:
        try:
            self._turn.run()
        except Exception:  # it would end the thread that all RPCs come in on
            logger.exception("a turn could not be ended")

    def _take(self, event: Any) -> bool:
        """Whether to go on after this event."""
        if event.tag is grpcio._REQUEST_CALL_TAG and event.success:
            begin = self._begin_of(event)
            if begin is not None:
                self._begin(CallbackRpc(event, begin))
                return True
        go_on: bool = grpcio._process_event_and_continue(self._state, event)
        return go_on

    def _begin_of(self, event: Any) -> Begin | None:
        try:
            return self._find(event.call_details.method, event.invocation_metadata)
        except Exception:  # it would end the thread; so grpcio refuses the RPC
            logger.exception("an RPC could not be looked up")
            return None

    def _begin(self, rpc: CallbackRpc) -> None:
        """What grpcio does with a new RPC, and ask for the next."""
        with self._state.lock:
            self._state.due.remove(grpcio._REQUEST_CALL_TAG)
            self._state.rpc_states.add(rpc)
            if self._state.stage is grpcio._ServerStage.STARTED:
                grpcio._request_call(self._state)
        rpc.receive()
