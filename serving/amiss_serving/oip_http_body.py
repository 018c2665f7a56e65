"""Bodies of POST .../infer, in and out: JSON, JSON with raw tensors behind it, or raw bytes alone.

Extension binary_tensor_data: a header holds the length of the JSON, tensors follow as little-endian
bytes. The length 0 means one tensor without JSON, its number of rows told by its size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_serving.inputs import Decoded, Limits, Spec, from_tensor
from amiss_serving.oip_parameters import (
    NONE,
    REQUEST_REFUSED,
    TENSOR_REFUSED,
    check_parameters,
    timeout_of,
)
from amiss_serving.oip_signature import (
    BY_DEFAULT,
    DATATYPES,
    checked_outputs,
    input_of,
    values_of,
)
from amiss_serving.oip_tensors import DTYPES, from_json, from_raw
from amiss_serving.service import Answer

JSON_LENGTH = "inference-header-content-length"
_SIZE, _BINARY, _BINARY_ALL = "binary_data_size", "binary_data", "binary_data_output"
_DIGITS = 18  # longer numbers are no length, and Python would refuse to read the longest
Parameters = dict[str, Any]


class InferInput(Struct):
    """One tensor to score, its elements as JSON unless a parameter says how many bytes follow."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: Raw | UnsetType = UNSET


class AskedOutput(Struct):
    """One output asked for."""

    name: str
    parameters: Parameters = {}


class InferRequest(Struct):
    """The JSON of a request."""

    inputs: list[InferInput]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[AskedOutput] = []


class InferOutput(Struct, omit_defaults=True):
    """One output, its elements as JSON unless a parameter says how many bytes follow."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | UnsetType = UNSET
    data: list[Any] | UnsetType = UNSET


class InferAnswer(Struct, omit_defaults=True):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    outputs: list[InferOutput]
    id: str = ""


_decoder = msgspec.json.Decoder(InferRequest)


@dataclass(frozen=True, slots=True)
class Infer:
    """What a request asks: names of the outputs, those of them in binary, seconds it may take.

    message: None when the whole body is one tensor. json_bytes: how long the JSON is, tail: what
    follows it.
    """

    message: InferRequest | None
    json_bytes: int
    tail: memoryview
    outputs: tuple[str, ...]
    binary: frozenset[str]
    timeout_s: float | None

    def decode(self, spec: Spec, limits: Limits) -> Decoded:
        """Its rows. Raises BadInput and TooLarge."""
        expected = input_of(spec)
        if self.message is None:
            row_bytes = math.prod(expected.shape[1:]) * np.dtype(DTYPES[expected.datatype]).itemsize
            if not self.tail or len(self.tail) % row_bytes:
                raise BadInput(
                    f"expected a body of {row_bytes} bytes for each row of {expected.name!r} "
                    f"{expected.datatype} {list(expected.shape)}, got {len(self.tail)} bytes"
                )
            shape = (len(self.tail) // row_bytes, *expected.shape[1:])
            return from_tensor(from_raw(self.tail, expected.datatype, shape), spec, limits)
        if len(self.message.inputs) != 1:
            names = [tensor.name[:80] for tensor in self.message.inputs[:8]]
            raise BadInput(f"expected one input {expected.name!r}, got {names or 'none'}")
        (tensor,) = self.message.inputs
        expected.check(tensor.name, tensor.datatype, tensor.shape)
        return from_tensor(_elements(tensor, self.tail), spec, limits)


def json_length(header: str | None, size: int) -> int | None:
    """Bytes of JSON in a body of so many, as the header says; None without it. Raises BadInput."""
    if header is None:
        return None
    if header.isdecimal() and len(header) <= _DIGITS and int(header) <= size:
        return int(header)
    raise BadInput(
        f"header Inference-Header-Content-Length must be the length of the JSON, at most the "
        f"body's {size} bytes, got {header!r:.40}"
    )


def read_infer(body: bytes, length: int | None) -> Infer:
    """What the body asks; length: of its JSON, None for all of it. Raises BadInput."""
    if length == 0:
        everything = frozenset(BY_DEFAULT)
        return Infer(None, 0, memoryview(body), BY_DEFAULT, everything, None)
    split = len(body) if length is None else length
    tail = memoryview(body)[split:]
    try:
        message = _decoder.decode(memoryview(body)[:split])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"expected the JSON of an inference request, got: {error}") from error
    check_parameters(message.parameters, REQUEST_REFUSED)
    for parameters in [tensor.parameters for tensor in message.inputs] + [
        output.parameters for output in message.outputs
    ]:
        check_parameters(parameters, TENSOR_REFUSED)
    outputs = checked_outputs(tuple(output.name for output in message.outputs))
    binary, timeout_s = _binary(message, outputs), timeout_of(message.parameters)
    return Infer(message, split, tail, outputs, binary, timeout_s)


def infer_answer(answer: Answer, asked: Infer) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON when bytes follow it."""
    outputs, tail = [], []
    for name, value in zip(asked.outputs, values_of(answer, asked.outputs), strict=True):
        output = InferOutput(name, DATATYPES[name], value.shape)
        if name in asked.binary:
            output.parameters = {_SIZE: value.nbytes}
            tail.append(value.tobytes())
        else:
            output.data = value.ravel().tolist()
        outputs.append(output)
    request_id = "" if asked.message is None else asked.message.id
    detector = answer.detector
    head = msgspec.json.encode(
        InferAnswer(detector.name, str(detector.version), outputs, request_id)
    )
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)


def answer_bytes(answer: Answer, asked: Infer) -> int:
    """About how much work the answer is to encode: ten characters for each value in JSON."""
    reconstruction = answer.scored.reconstruction
    values = len(BY_DEFAULT) * len(answer.scored.verdicts.score)
    if reconstruction is not None:
        values += reconstruction.size
    return values if len(asked.binary) == len(asked.outputs) else 10 * values


def _binary(message: InferRequest, outputs: Sequence[str]) -> frozenset[str]:
    """The outputs that are asked for as bytes, each by itself or all together."""
    everything = message.parameters.get(_BINARY_ALL, False)
    own = {output.name: output.parameters for output in message.outputs}
    return frozenset(name for name in outputs if own.get(name, NONE).get(_BINARY, everything))


def _elements(tensor: InferInput, tail: memoryview) -> NDArray[Any]:
    """The tensor's elements, from JSON or from the bytes behind it."""
    size = tensor.parameters.get(_SIZE)
    if (size is None) == (tensor.data is UNSET):
        raise BadInput(
            f"expected input {tensor.name!r} to have 'data' or parameter {_SIZE!r}, got "
            + ("neither" if size is None else "both")
        )
    if len(tail) != (size or 0):
        raise BadInput(f"expected {size or 0} bytes behind the JSON, got {len(tail)}")
    if isinstance(tensor.data, Raw):
        return from_json(memoryview(tensor.data), tensor.datatype, tensor.shape)
    return from_raw(tail, tensor.datatype, tensor.shape)
