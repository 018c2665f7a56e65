"""Runs of the model that a door's own thread makes."""

import math
import threading
from collections.abc import Callable
from typing import Protocol


class Runs(Protocol):
    """What a turn needs of a lane."""

    def run_here(self) -> bool:
        """One run in the caller's own thread if it is quick; whether rows wait for another."""

    def ring(self) -> None:
        """Have another thread see to the rows that wait."""


class Turn:
    """Lanes that a door's thread runs between one look at its connections and the next.

    Two threads of Python hand each request to one another at the price of a small model, so quick
    runs are made where their requests come in. The door's thread adds and runs; another may watch
    `taken_s` and, when the model does not come back, `release` the turn for a new thread.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # between the end of a run and its release
        self._lanes: set[Runs] = set()
        self._began_s = math.inf

    def add(self, lane: Runs) -> None:
        """See to the lane's rows at the end of this turn."""
        self._lanes.add(lane)

    @property
    def is_due(self) -> bool:
        """Whether rows wait for the end of the turn."""
        return bool(self._lanes)

    def run(self) -> None:
        """End the turn: one lane runs here, the others beside it in threads of their own."""
        lane = self._next()
        self.hand_over()
        if lane is None:
            return
        self._began_s = began_s = self._clock()
        rows_wait = lane.run_here()
        with self._lock:
            is_mine = self._began_s == began_s
            if is_mine:
                self._began_s = math.inf
                if rows_wait:
                    self._lanes.add(lane)
        if rows_wait and not is_mine:
            lane.ring()

    def taken_s(self) -> float:
        """How long the run that goes on now has taken; negative without any."""
        return self._clock() - self._began_s

    def release(self) -> None:
        """Leave the run that goes on now to its thread; a new one takes the next turns."""
        with self._lock:
            self._began_s = math.inf

    def hand_over(self) -> None:
        """Leave every lane to its own threads."""
        while (lane := self._next()) is not None:
            lane.ring()

    def _next(self) -> Runs | None:
        try:
            return self._lanes.pop()
        except KeyError:
            return None
