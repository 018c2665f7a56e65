"""How an overload is read: rates and memory of the counted stretch, refusals told from silence."""

import http.server
import threading

import numpy as np
import pytest

from bench.serving import doors
from bench.serving.doors import Request
from bench.serving.open_loop import Load
from bench.serving.overload import Plan, Refusal, memory, probe, rate, refused

PLAN = Plan(settle_s=2, seconds=10)


def test_a_rate_counts_the_stretch_after_the_settling() -> None:
    """Neither what came before nor what came after the last due time, nor what never came."""
    moments_s = np.array([0.5, 1.9, 2.0, 7.0, 11.9, 12.0, 13.0, np.nan])
    assert rate(moments_s, PLAN) == pytest.approx(3 / 10)


def test_memory_is_compared_from_second_to_second() -> None:
    """The medians of the third second and of the last before the end, and the highest of all."""
    rss = [(0.5, 50.0), (2.1, 100.0), (2.2, 900.0), (2.3, 100.0), (11.5, 110.0), (12.5, 95.0)]
    found = memory(rss, PLAN)
    assert (found.settled, found.last, found.peak) == (100, 110, 900)
    assert found.growth == pytest.approx(0.1)


def test_silence_is_no_refusal() -> None:
    """Refused is who was told so; who was answered well or not at all is not."""
    load = Load(3)
    load.done(0, ok=True, size=1)
    load.done(1, ok=False, size=0)
    assert refused(load).tolist() == [False, True, False]


def test_a_probe_reads_why_it_is_refused() -> None:
    """Code and seconds, as an ordinary client finds them in an HTTP answer."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(429)
            self.send_header("Retry-After", "1")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is its own."""

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        door = doors.oip_http(f"127.0.0.1:{server.server_port}")
        assert probe(door, Request({}, b"rows")) == Refusal("429", "1")
        thread.join()
