"""What is made of the lines that TorchServe and its workers print."""

import json
import logging

import pytest

from amiss_serving.torchserve.output import Output

START = ["s_name_part0=/tmp/x", "[PID]7", "Torch worker started.", "Python runtime: 3.11.7"]
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "handler.py", line 3, in initialize',
    "    raise ValueError(text)",
    "ValueError: the model",
    "is broken",
]


def line(message: str, *, thread: str = "main", level: str = "INFO", error: str = "") -> str:
    """As log4j writes it."""
    fields = {"level": level, "logger": "L", "thread": thread, "message": message, "error": error}
    return json.dumps(fields) + "\n"


def worker(message: str, name: str = "a_1") -> str:
    return line(message, thread=f"W-9000-{name}-stdout")


def test_the_cause_is_the_last_exception_of_the_models_own_workers() -> None:
    """Without the traceback's lines, without what every worker prints, without other models'."""
    output = Output()
    for message in [*START, *TRACEBACK]:
        output.take(worker(message))
    output.take(worker("ValueError: of another", "b_1"))
    assert output.cause("a", "1") == "ValueError: the model | is broken"
    assert output.last_lines("a", "1")[-len(TRACEBACK) :] == TRACEBACK


def test_without_an_exception_the_cause_is_what_was_printed_last() -> None:
    """A worker that was killed, or printed nothing of its own, is told as such."""
    output = Output()
    for message in START:
        output.take(worker(message))
    assert output.cause("a", "1") == "its worker printed nothing"
    output.take(worker("segmentation fault"))
    assert output.cause("a", "1") == "segmentation fault"


def test_a_death_is_counted_under_the_shortened_name() -> None:
    """TorchServe cuts NAME_VERSION to 25 characters in what it prints."""
    output, name = Output(), "a-name-of-some-thirty-letters"
    output.take(line("Retry worker: 9000 in 1 seconds.", thread=f"W-9000-{name[:25]}"))
    assert (output.deaths(name, "1"), output.deaths("b", "1")) == (1, 0)


def test_torchserves_own_cause_leaves_stack_traces_out() -> None:
    """Java's own words, before log4j is there, count; the forty lines below them do not."""
    output = Output()
    output.take("WARNING: sun.reflect.Reflection.getCallerClass is not supported.\n")
    output.take("java.net.BindException: Address already in use\n")
    for _ in range(60):
        output.take("\tat io.netty.channel.unix.Errors\n")
    assert output.own_cause() == "java.net.BindException: Address already in use"


def test_warnings_reach_our_log_and_the_rest_does_not(caplog: pytest.LogCaptureFixture) -> None:
    """A warning of TorchServe is one of ours; INFO, and lines that are no JSON, are debug."""
    output = Output()
    with caplog.at_level(logging.DEBUG, logger="torchserve"):
        output.take(line("slow", level="WARN", error="java.lang.X"))
        output.take(line("chatty"))
        output.take("{no json\n")
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [("WARNING", "slow java.lang.X"), ("DEBUG", "chatty"), ("DEBUG", "{no json")]
