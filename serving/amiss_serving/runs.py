"""Requests on their way through a lane, and the runs of the model that they share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.decision import Verdicts
from amiss_serving.detector import LoadedDetector, Scored, joined

Result = Scored | Exception
Done = Callable[[Result], None]


@dataclass(eq=False, slots=True)
class Request:
    """Whom to tell, and the answers to its batch-sized parts as they come."""

    done: Done
    deadline_s: float
    answers: list[Scored | None]
    members: "list[Member]" = field(default_factory=list)
    is_over: bool = False  # answered, failed or cancelled: guarded by the lane's lock

    def scored(self) -> Scored | None:
        """The whole answer, once every part has come."""
        parts = [answer for answer in self.answers if answer is not None]
        if len(parts) < len(self.answers):
            return None
        return parts[0] if len(parts) == 1 else joined(parts)


@dataclass(eq=False, slots=True)
class Member:
    """One request's rows, or a batch-sized part of them."""

    request: Request
    part: int
    x: NDArray[Any]
    reconstruct: bool
    joined_s: float


@dataclass(eq=False, slots=True)
class Run:
    """One run of the model: for whom, since when, and what came of it."""

    members: list[Member]
    started_s: float
    answers: list[Result] = field(default_factory=list)
    verdicts: list[Verdicts] = field(default_factory=list)  # of all its rows, for the metrics


def whole(request: Request) -> Result | None:
    """The whole answer, once every part has come; the error, where it does not fit into memory."""
    try:
        return request.scored()
    except Exception as error:
        return error


def score_run(detector: LoadedDetector, run: Run, members: list[Member]) -> None:
    """One answer per member into the run.

    When a batch fails its members run alone, so that only the one at fault sees the error.
    """
    try:
        x = members[0].x if len(members) == 1 else np.concatenate([member.x for member in members])
        scored = detector.score(x, reconstruct=members[0].reconstruct)
    except Exception as error:
        if len(members) == 1:
            run.answers.append(error)
            return
        for member in members:
            score_run(detector, run, [member])
        return
    start = 0
    for member in members:
        stop = start + len(member.x)
        run.answers.append(scored.part(start, stop, reconstruct=member.reconstruct))
        start = stop
    run.verdicts.append(scored.verdicts)
