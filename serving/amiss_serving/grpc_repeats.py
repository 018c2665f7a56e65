"""Requests that differ from earlier ones in the bytes of their tensor alone, read without protobuf.

A caller's requests are alike: the same detector, shape and outputs, then the elements. Reading all
of that again costs more than a small model.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from google.protobuf.message import DecodeError, Message

from amiss_export.errors import BadInput
from amiss_serving.inputs import Decoded, Limits, Spec, from_tensor
from amiss_serving.service import INLINE_BYTES, Ask

_MOST_LENGTHS, _MOST_ALIKE = 256, 8  # beyond that the earlier ones are forgotten
_MOST_BYTES = 1024  # before the elements
_INVERTED = bytes(range(255, -1, -1))
M = TypeVar("M", bound=Message)
F = TypeVar("F")


class Repeats(Generic[M, F]):
    """Reads requests of one kind.

    ask(request): what it asks for. form(request): what its response needs to know of it.
    payload(request): the bytes of its tensor's elements, b"" without any. What precedes the last
    field of a message decides how it is read, so what was read of one holds for every other that
    is as long and begins with the same bytes.
    """

    def __init__(
        self,
        kind: type[M],
        ask: Callable[[M], Ask],
        payload: Callable[[M], bytes],
        form: Callable[[M], F],
    ) -> None:
        self._kind, self._ask, self._payload, self._form = kind, ask, payload, form
        # By the length of the message; what was seen is all that preceded the elements.
        self._known: dict[int, list[_Known[F]]] = {}
        self._seen: dict[int, set[bytes]] = {}

    def read(self, data: bytes) -> tuple[Ask, F]:
        """What the request that the bytes hold asks for, and its form. Raises BadInput."""
        for known in self._known.get(len(data), ()):
            if data.startswith(known.beginning):
                return known.ask_of(data), known.form
        request = parse(self._kind, data)
        ask, form = self._ask(request), self._form(request)
        if len(data) <= INLINE_BYTES:
            self._learn(data, request, ask, form)
        return ask, form

    def _learn(self, data: bytes, request: M, ask: Ask, form: F) -> None:
        """Know the next ones like this, if there was one before."""
        payload = self._payload(request)
        if not payload or not data.endswith(payload):
            return
        beginning = data[: -len(payload)]
        if len(beginning) > _MOST_BYTES:
            return
        if len(self._seen) >= _MOST_LENGTHS:
            self._seen.clear()
            self._known.clear()
        seen = self._seen.setdefault(len(data), set())
        if beginning not in seen:  # perhaps never again, with an id of its own
            if len(seen) >= _MOST_ALIKE:
                seen.clear()
            seen.add(beginning)
            return
        inverted = payload.translate(_INVERTED)
        with suppress(DecodeError):
            if self._payload(self._kind.FromString(beginning + inverted)) != inverted:
                return  # what ends the message only looks like the elements
            known = self._known.get(len(data), [])[1 - _MOST_ALIKE :]
            self._known[len(data)] = [*known, _Known(beginning, form, ask, self._read)]

    def _read(self, data: bytes) -> Ask:
        return self._ask(parse(self._kind, data))


class _Known(Generic[F]):
    """What was read of one request."""

    def __init__(self, beginning: bytes, form: F, ask: Ask, read: Callable[[bytes], Ask]) -> None:
        self.beginning, self.form = beginning, form
        self._ask = msgspec.structs.replace(ask, decode=_forgotten)  # it would keep the tensor
        self._read = read
        self._like: tuple[Spec, np.dtype[Any], tuple[int, ...]] | None = None

    def ask_of(self, data: bytes) -> Ask:
        """What a request like it asks for."""
        return msgspec.structs.replace(self._ask, decode=partial(self._decode, data))

    def _decode(self, data: bytes, spec: Spec, limits: Limits) -> Decoded:
        """Its rows. For each detector the first are decoded in full: their shape is right, or an
        error says what is wrong."""
        start = len(self.beginning)
        if self._like is None or self._like[0] is not spec:
            decoded = self._read(data).decode(spec, limits)
            if decoded.x.tobytes() == data[start:]:
                self._like = spec, decoded.x.dtype, decoded.x.shape
            return decoded
        _, dtype, shape = self._like
        x = np.frombuffer(data, dtype, offset=start).reshape(shape)
        return from_tensor(x if x.flags.aligned else x.copy(), spec, limits)


def _forgotten(_: Spec, __: Limits) -> Decoded:
    raise RuntimeError("expected the elements of a request, got those of an earlier one")


def parse(kind: type[M], data: bytes) -> M:
    """The message that the bytes hold. Raises BadInput."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadInput(
            f"expected a message {kind.DESCRIPTOR.full_name}, got {len(data)} bytes: {error}"
        ) from error
