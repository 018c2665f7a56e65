"""TorchServe's own worker code around our handler, and what its Java half says to it: the bytes."""

import socket
import struct
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

with warnings.catch_warnings():  # ts leaves its file version.txt open
    warnings.simplefilter("ignore", ResourceWarning)
    from ts.model_loader import ModelLoaderFactory
    from ts.protocol.otf_message_handler import retrieve_msg

END = struct.pack("!i", -1)


@dataclass(frozen=True)
class Answer:
    """What one request of a batch is answered."""

    status: int
    content_type: str
    body: bytes


class Worker:
    """A worker that has loaded an archive."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, gpu_id: int | None = None
    ) -> None:
        """folder: the archive, unpacked."""
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "handler", raising=False)
        monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "true")
        self.service = ModelLoaderFactory.get_model_loader().load(
            "table", str(folder), "handler.py", gpu_id, 8
        )
        self.service.context.metrics = SimpleNamespace(add_time=lambda *_: None)
        self.service.set_cl_socket(None)

    def ask(self, *batch: Mapping[str, bytes], content_type: str = "") -> list[Answer]:
        """The answers to a batch of requests, each fields by name."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            requests = [_request(i, fields, content_type) for i, fields in enumerate(batch)]
            ours.sendall(b"".join([b"I", *requests, END]))
            _, message = retrieve_msg(theirs)
        return _answers(self.service.predict(message), len(batch))


def _request(number: int, fields: Mapping[str, bytes], content_type: str) -> bytes:
    """One request as the Java half encodes it: id, headers, fields."""
    parts = [
        _text(name.encode()) + _text(content_type.encode()) + _text(value)
        for name, value in fields.items()
    ]
    return b"".join([_text(f"request-{number}".encode()), END, *parts, END])


def _answers(message: bytes, count: int) -> list[Answer]:
    """What the Java half reads: code and words for all, then for each request the rest."""
    stream = BytesIO(message)
    assert (_int(stream), _read(stream)) == (200, b"Prediction success")
    answers: dict[bytes, Answer] = {}
    for _ in range(count):
        request_id, content_type = _read(stream), _read(stream).decode()
        status, _ = _int(stream), _read(stream)
        for _ in range(_int(stream)):  # headers
            _read(stream), _read(stream)
        answers[request_id] = Answer(status, content_type, _read(stream))
    assert stream.read() == END
    return [answers[f"request-{i}".encode()] for i in range(count)]


def _text(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def _int(stream: BytesIO) -> int:
    value: int = struct.unpack("!i", stream.read(4))[0]
    return value


def _read(stream: BytesIO) -> bytes:
    return stream.read(_int(stream))
