"""A batch of TorchServe's requests: their rows in as few runs as can be, a reply to each."""

import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from amiss_export.errors import AmissError, BadInput
from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.errors import TooLarge
from amiss_serving.inputs import Limits, Spec
from amiss_serving.runs import Member, Request, Result, Run, score_run, whole
from amiss_serving.service import Answer
from amiss_serving.settings import Settings
from amiss_serving.torchserve.requests import JSON, Asked, Fields, read_request

STATUS: dict[type[Exception], int] = {BadInput: 400, TooLarge: 413, AmissError: 500}
MAX_BATCH_ROWS = Settings.max_batch_rows
LIMITS = Limits(
    max_rows=Settings.max_request_rows,
    max_bytes=Settings.max_body_bytes,
    max_pixels=Settings.max_image_pixels,
)
OK = 200
_FLOAT_BYTES = 4
logger = logging.getLogger(__name__)


class Reply(msgspec.Struct, frozen=True):
    """What TorchServe sends back for one request."""

    status: int
    content_type: str
    body: bytes


class Failure(msgspec.Struct, frozen=True):
    """What was expected, what arrived, what to do."""

    error: str
    request_id: str
    status: int


def answer_batch(
    detector: LoadedDetector, batch: Sequence[Fields], request_ids: Sequence[str]
) -> list[Reply]:
    """One reply for each request, in order; what is wrong with one is told to that one alone."""
    asked = [_read(fields, detector.spec) for fields in batch]
    results: list[Result | None] = [None] * len(asked)
    for reconstruct in (False, True):  # another graph: a run has them for all its rows or for none
        members = [
            member
            for i, each in enumerate(asked)
            if isinstance(each, Asked) and each.reconstruct is reconstruct
            for member in _members(each, results, i)
        ]
        for run in _runs(members):
            score_run(detector, run, run.members)
            _hand_out(run)
    return [_reply(detector, *each) for each in zip(asked, results, request_ids, strict=True)]


def _read(fields: Fields, spec: Spec) -> Asked | Exception:
    try:
        return read_request(fields, spec, LIMITS)
    except Exception as error:  # whatever it is, the neighbours have nothing to do with it
        return error


def _members(asked: Asked, results: list[Result | None], i: int) -> list[Member]:
    """The rows in parts that a run can hold; their result goes to place i."""
    x = asked.rows.x
    parts = [x[start : start + MAX_BATCH_ROWS] for start in range(0, len(x), MAX_BATCH_ROWS)]
    request = Request(partial(results.__setitem__, i), math.inf, [None] * len(parts))
    return [Member(request, k, part, asked.reconstruct, 0.0) for k, part in enumerate(parts)]


def _runs(members: Sequence[Member]) -> Iterator[Run]:
    """Runs of as many rows as one may have, in order."""
    run, rows = Run([], 0.0), 0
    for member in members:
        if run.members and rows + len(member.x) > MAX_BATCH_ROWS:
            yield run
            run, rows = Run([], 0.0), 0
        run.members.append(member)
        rows += len(member.x)
    if run.members:
        yield run


def _hand_out(run: Run) -> None:
    """The run's answers to the requests that they complete or fail."""
    for member, answer in zip(run.members, run.answers, strict=True):
        request = member.request
        if request.is_over:  # a part before failed
            continue
        if isinstance(answer, Scored):
            request.answers[member.part] = answer
        result = answer if isinstance(answer, Exception) else whole(request)
        if result is not None:
            request.is_over = True
            request.done(result)


def _reply(
    detector: LoadedDetector, asked: Asked | Exception, result: Result | None, request_id: str
) -> Reply:
    if isinstance(asked, Exception):
        return _failed(asked, request_id)
    if isinstance(result, Scored):
        rows = asked.rows
        answer = Answer(detector, result, rows.unseen_categories, rows.missing_values)
        return Reply(OK, asked.content_type, asked.write(answer))
    return _failed(result, request_id)


def _failed(error: Exception | None, request_id: str) -> Reply:
    """The error as JSON, by the table; what is not in it is logged in full, answered in general.

    Over gRPC TorchServe answers OK whatever the status, so that the body holds it, too, and is
    never as long as float32 numbers are: a caller who waits for those knows it by its length.
    """
    kind = next((kind for kind in type(error).__mro__ if kind in STATUS), None)
    text = str(error)
    if kind is None:
        logger.error("unexpected error in request %s", request_id, exc_info=error)
        text = f"internal error; TorchServe's log has it under request id {request_id}"
    status = 500 if kind is None else STATUS[kind]
    body = msgspec.json.encode(Failure(text, request_id, status))
    return Reply(status, JSON, body if len(body) % _FLOAT_BYTES else body + b"\n")
