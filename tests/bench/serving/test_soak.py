"""What is sent at a service of every kind, and how it is held against the service's own count."""

from collections import Counter

import psutil

from bench.serving import doors
from bench.serving.service import Counts, Service, counts_of
from bench.serving.soak import ROUND, Slice, Tally, mix

PAGE = """\
# TYPE amiss_requests_total counter
amiss_requests_total{code="OK",method="Score",model="a",protocol="grpc",version="1"} 3.0
amiss_requests_total{code="OK",method="Score",model="b",protocol="grpc",version="1"} 4.0
amiss_requests_total{code="404",method="ModelInfer",model="",protocol="http",version=""} 1.0
"""


def test_a_rotation_is_as_long_as_it_says() -> None:
    """The slices add up to ROUND, so that the marks at which memory is read are met."""
    assert sum(part.n for part in mix(_service())) == ROUND


def test_a_slice_for_an_unknown_model_names_it_nowhere() -> None:
    """Neither the path nor the body has the name of the model that is served."""
    unknown = [part for part in mix(_service()) if part.code in {"NOT_FOUND", "404"}]
    assert len(unknown) == 2
    assert not any(b"digits28" in part.request.body + part.door.url.encode() for part in unknown)


def test_the_counts_of_all_models_are_added_up() -> None:
    """One number for protocol, method and code."""
    expected = {("grpc", "Score", "OK"): 7, ("http", "ModelInfer", "404"): 1}
    assert counts_of(PAGE) == expected


def test_what_was_counted_as_sent_makes_no_difference() -> None:
    """Of ten who hung up any number may have been seen, answered or not."""
    tally = _tally()
    for seen in ({"CANCELLED": 0}, {"CANCELLED": 4, "OK": 6}, {"OK": 10}):
        assert tally.differences(_counts(good=5 + seen.pop("OK", 0), **seen)) == []


def test_a_lost_request_is_found() -> None:
    """Four counted of five that were answered."""
    assert tally_says(_counts(good=4)) == ["grpc ModelInfer OK: sent 5, counted 4"]


def test_an_error_that_nobody_asked_for_is_found() -> None:
    """A code that no slice expects."""
    assert tally_says(_counts(good=5, INTERNAL=1)) == [
        "grpc ModelInfer INTERNAL: sent 0, counted 1"
    ]


def test_more_than_were_sent_are_found() -> None:
    """Eleven of ten who hung up."""
    assert tally_says(_counts(good=16)) == ["grpc, left: sent 0 to 10, counted 11"]


def tally_says(counts: Counts) -> list[str]:
    return _tally().differences(counts)


def _tally() -> Tally:
    """Five answered, ten hung up."""
    door = doors.oip_grpc("127.0.0.1:1")
    request = doors.Request({}, b"")
    tally = Tally()
    tally.add(Slice("good", 5, door, request, "OK"), 5)
    tally.add(Slice("hung up", 10, door, request, None, hangs_up=True), 0)
    assert (tally.sent, tally.unanswered) == (15, 0)
    return tally


def _counts(*, good: int, **others: int) -> Counts:
    counts: Counts = Counter({("grpc", "ModelInfer", code): n for code, n in others.items()})
    counts["grpc", "ModelInfer", "OK"] = good
    counts["http", "other", "200"] = 99  # probes are nobody's requests
    return counts


def _service() -> Service:
    """One that is never asked."""
    http, grpc = "127.0.0.1:1", "127.0.0.1:2"
    made = (doors.oip_grpc(grpc), doors.oip_http(http), doors.oip_json(http), doors.amiss_v1(grpc))
    return Service(psutil.Process(), "", *made)
