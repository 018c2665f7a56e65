"""Logs are one JSON object a line."""

import json
import logging

from amiss_serving.logs import JsonFormatter


def test_a_record_is_one_json_object_with_its_fields() -> None:
    """Time, level, logger, message and the record's own fields, on one line."""
    record = logging.LogRecord("room", logging.INFO, "f.py", 1, "two\nlines %s", ("x",), None)
    record.fields = {"request_id": "abc", "path": object}
    line = JsonFormatter().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert told["message"] == "two\nlines x"
    assert told["level"] == "info"
    assert told["request_id"] == "abc"
    assert told["time"].endswith("+00:00")


def test_an_exception_is_logged_in_full() -> None:
    """The traceback is in the object, not in lines behind it."""
    try:
        raise ValueError("the reason")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("room", logging.ERROR, "f.py", 1, "failed", (), info)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "the reason" in json.loads(line)["traceback"]
