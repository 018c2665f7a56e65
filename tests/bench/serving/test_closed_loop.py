"""What is read of h2load: the log of requests and the bytes of the answers."""

import numpy as np
import pytest

from bench.serving.closed_loop import data_bytes, parse_log

SUMMARY = """\
finished in 2.20s, 444.37 req/s, 36.60KB/s
requests: 978 total, 978 started, 978 done, 978 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 978 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 80.54KB (82476) total, 2.94KB (3009) headers (space savings 96.20%), 41.07KB (42054) data
"""


def test_the_log_is_read_in_the_order_of_the_starts() -> None:
    """Rows come in the order of the ends; starts and durations are seconds of the same request."""
    log = parse_log("1000500\t200\t300\n1000000\t200\t2500\n1001000\t-1\t10\n")
    np.testing.assert_allclose(log.start_s, [1.0, 1.0005, 1.001])
    np.testing.assert_allclose(log.duration_s, [0.0025, 0.0003, 0.00001])
    assert log.ok.tolist() == [True, True, False]


@pytest.mark.parametrize(("status", "ok"), [(200, True), (0, True), (503, False), (-1, False)])
def test_an_answer_is_good_by_its_status(status: int, *, ok: bool) -> None:
    """200 is good, so is what h2load writes without a reason phrase; all else is not."""
    assert parse_log(f"1\t{status}\t1\n").ok.tolist() == [ok]


def test_an_empty_log_is_refused() -> None:
    """A server that answers nothing is an error, not a rate of 0."""
    with pytest.raises(RuntimeError, match="nothing was answered"):
        parse_log("\n")


def test_the_bytes_of_the_bodies_are_found() -> None:
    """It is the last figure of the line `traffic`, not the total and not the headers."""
    assert data_bytes(SUMMARY) == 42054
    with pytest.raises(RuntimeError, match="expected a line"):
        data_bytes("finished in 2.20s")
