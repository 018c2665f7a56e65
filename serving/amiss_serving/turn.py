"""Runs of the model that a door's own thread makes."""

import math
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
    `taken_s` and, when the model does not come back, put a new thread in its place.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
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
        lane = self._lanes.pop()
        while self._lanes:
            self._lanes.pop().ring()
        self._began_s = began_s = self._clock()
        try:
            if lane.run_here():
                self._lanes.add(lane)
        finally:
            if self._began_s == began_s:  # else a new thread's run has begun since
                self._began_s = math.inf

    def taken_s(self) -> float:
        """How long the run that goes on now has taken; negative without any."""
        return self._clock() - self._began_s
