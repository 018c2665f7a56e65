"""Requests that differ from earlier ones in the bytes of their tensor alone, read without protobuf.

A caller's requests are alike: the same detector, shape and outputs, then the elements. Reading all
of that again costs more than a small model.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from google.protobuf.message import DecodeError, Message

from amiss_export.errors import BadInput
from amiss_serving.inputs import Decoded, Limits, Spec, from_tensor
from amiss_serving.service import INLINE_BYTES, Ask

_MOST_KNOWN = 256  # of one method; beyond that all are forgotten
M = TypeVar("M", bound=Message)


class Repeats(Generic[M]):
    """Reads requests of one kind.

    payload(request): the bytes of its tensor's elements, b"" without any. What precedes the last
    field of a message decides how it is read, so what was read of one holds for every other that
    is as long and begins with the same bytes.
    """

    def __init__(
        self, kind: type[M], ask: Callable[[M], Ask], payload: Callable[[M], bytes]
    ) -> None:
        self._kind, self._ask, self._payload = kind, ask, payload
        self._known: dict[int, _Known[M]] = {}  # by the length of the message
        self._seen: dict[int, bytes] = {}  # the beginning of the last one of that length

    def read(self, data: bytes) -> tuple[M, Ask]:
        """The message that the bytes hold, and what it asks for. Raises BadInput.

        The message of a request like an earlier one has the elements of that one: they are in what
        is asked.
        """
        known = self._known.get(len(data))
        if known is not None and data.startswith(known.beginning):
            return known.request, known.ask_of(data)
        request = parse(self._kind, data)
        ask = self._ask(request)
        if len(data) <= INLINE_BYTES:
            self._learn(data, request, ask)
        return request, ask

    def _learn(self, data: bytes, request: M, ask: Ask) -> None:
        """Know the next ones like this, if the last one of its length was."""
        payload = self._payload(request)
        if not payload or not data.endswith(payload):
            return
        beginning = data[: -len(payload)]
        if self._seen.get(len(data)) != beginning:
            if len(self._seen) >= _MOST_KNOWN:
                self._seen.clear()
                self._known.clear()
            self._seen[len(data)] = beginning
            return
        other = bytes(byte ^ 0xFF for byte in payload)
        if self._payload(self._kind.FromString(beginning + other)) == other:  # no coincidence
            self._known[len(data)] = _Known(beginning, request, ask, self._ask)


class _Known(Generic[M]):
    """What was read of one request."""

    def __init__(self, beginning: bytes, request: M, ask: Ask, read: Callable[[M], Ask]) -> None:
        self.beginning, self.request = beginning, request
        self._ask, self._read = ask, read
        self._like: tuple[Spec, np.dtype[Any], tuple[int, ...]] | None = None

    def ask_of(self, data: bytes) -> Ask:
        """What a request like it asks for."""
        return msgspec.structs.replace(self._ask, decode=partial(self._decode, data))

    def _decode(self, data: bytes, spec: Spec, limits: Limits) -> Decoded:
        """Its rows. For each detector the first are decoded in full: their shape is right, or an
        error says what is wrong."""
        start = len(self.beginning)
        if self._like is None or self._like[0] is not spec:
            decoded = self._read(parse(type(self.request), data)).decode(spec, limits)
            if decoded.x.tobytes() == data[start:]:
                self._like = spec, decoded.x.dtype, decoded.x.shape
            return decoded
        _, dtype, shape = self._like
        x = np.frombuffer(data, dtype, offset=start).reshape(shape)
        return from_tensor(x if x.flags.aligned else x.copy(), spec, limits)


def parse(kind: type[M], data: bytes) -> M:
    """The message that the bytes hold. Raises BadInput."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadInput(
            f"expected a message {kind.DESCRIPTOR.full_name}, got {len(data)} bytes: {error}"
        ) from error
