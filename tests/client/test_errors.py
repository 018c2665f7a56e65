"""The error tree: which class a status becomes, what it carries, and what is tried again."""

import socket

import grpc
import numpy as np
import pytest

import amiss_client
from amiss_client import AmissClientError, InvalidInput, Overloaded, Unavailable
from amiss_client.errors import CLASS_OF
from client.fake_service import Ask, FakeService

SC = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (SC.INVALID_ARGUMENT, "InvalidInput"),
        (SC.NOT_FOUND, "DetectorNotFound"),
        (SC.UNAUTHENTICATED, "Unauthenticated"),
        (SC.PERMISSION_DENIED, "PermissionDenied"),
        (SC.INTERNAL, "ServerError"),
        (SC.UNKNOWN, "ServerError"),
        (SC.UNIMPLEMENTED, "ServerError"),
    ],
)
def test_each_status_has_its_class(
    service: FakeService, ask: Ask, code: grpc.StatusCode, name: str
) -> None:
    """The class is the table's, with the service's words, the status and the request id on it."""
    service.failures.append((code, "expected that, got this", {"x-request-id": "abc"}))
    with pytest.raises(AmissClientError, match=r"^expected that, got this$") as caught:
        ask("score_table", "table", {"size": [1.0]})
    assert type(caught.value) is getattr(amiss_client, name)
    assert (caught.value.code, caught.value.request_id) == (code.name, "abc")


def test_the_table_names_every_class_of_the_tree() -> None:
    """Each class under AmissClientError but ServerError, the rest, is some status's class."""
    assert {*CLASS_OF.values(), amiss_client.ServerError} == set(AmissClientError.__subclasses__())


def test_a_full_queue_says_when_to_come_back(service: FakeService, ask: Ask) -> None:
    """RESOURCE_EXHAUSTED with retry-after is Overloaded with that time."""
    service.failures.append((SC.RESOURCE_EXHAUSTED, "queue full", {"retry-after": "0.5"}))
    with pytest.raises(Overloaded, match="queue full") as caught:
        ask("score_table", "table", {"size": [1.0]})
    assert caught.value.retry_after_s == 0.5


def test_too_large_is_not_overload(service: FakeService, ask: Ask) -> None:
    """RESOURCE_EXHAUSTED without retry-after is InvalidInput: coming back will not help."""
    service.failures.append((SC.RESOURCE_EXHAUSTED, "at most 10 rows, got 99", {}))
    with pytest.raises(InvalidInput, match="at most 10 rows") as caught:
        ask("score_table", "table", {"size": [1.0]})
    assert caught.value.code == "RESOURCE_EXHAUSTED"


def test_unavailable_is_tried_again(service: FakeService, ask: Ask) -> None:
    """Two refusals of a draining service cost two retries and no error."""
    service.failures.extend([(SC.UNAVAILABLE, "draining", {})] * 2)
    assert ask("score_table", "table", {"size": [1.0]}).score.tolist() == [1.0]
    assert len(service.requests) == 3


def test_retries_are_bounded(service: FakeService, ask: Ask) -> None:
    """After four attempts the caller hears that the service is unavailable, in its own words."""
    service.failures.extend([(SC.UNAVAILABLE, "draining", {"x-request-id": "abc"})] * 9)
    with pytest.raises(Unavailable, match=r"^draining$"):
        ask("list_detectors")
    assert len(service.requests) == 4


@pytest.mark.parametrize("code", [SC.INTERNAL, SC.INVALID_ARGUMENT, SC.NOT_FOUND])
def test_other_errors_are_not_tried_again(
    service: FakeService, ask: Ask, code: grpc.StatusCode
) -> None:
    """An error that is not UNAVAILABLE reaches the caller after one attempt."""
    service.failures.append((code, "no", {}))
    with pytest.raises(AmissClientError):
        ask("score_table", "table", {"size": [1.0]})
    assert len(service.requests) == 1


def test_nothing_listening_is_said_with_the_address(ask: Ask) -> None:
    """At an address where nothing listens the message names it and the command that helps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"{address}.*amiss serve") as caught:
            ask("list_detectors", options={"address": address, "timeout_s": 5.0})
    assert caught.value.request_id


def test_a_later_piece_names_its_rows(service: FakeService, ask: Ask) -> None:
    """An error in the third piece says which of the caller's rows the service counts from."""
    service.fail_when[8] = (SC.INVALID_ARGUMENT, "column 'size', row 1: no", {})
    with pytest.raises(
        InvalidInput, match=r"^rows 8 to 11, counted from there: column 'size', row 1"
    ):
        ask(
            "score_table",
            "table",
            {"size": np.arange(40.0)},
            options={"max_rows_per_request": 4},
        )
    assert len(service.requests) < 10


@pytest.mark.parametrize(
    "options",
    [
        {"address": "http://127.0.0.1:8000"},
        {"address": "localhost"},
        {"address": "localhost:70000"},
        {"address": "localhost:http"},
        {"address": ":8001"},
        {"timeout_s": 0.0},
        {"timeout_s": float("inf")},
        {"max_in_flight": 0},
        {"max_rows_per_request": 0},
    ],
)
def test_unusable_settings_are_refused(ask: Ask, options: dict[str, object]) -> None:
    """A client is not made with an address or a limit that cannot work."""
    with pytest.raises(InvalidInput, match="must be"):
        ask("list_detectors", options=options)
