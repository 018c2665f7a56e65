"""Elements of the Open Inference Protocol's tensors: raw bytes, typed fields and JSON, to numpy
and back. Here are the three types that detectors take and give.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from amiss.oip import open_inference_pb2 as pb
from amiss_export.errors import BadInput
from amiss_serving.inputs import tensor_from_bytes

DTYPES = {"UINT8": "<u1", "FP32": "<f4", "BOOL": "?"}
CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents", "BOOL": "bool_contents"}

# JSON has no word for NaN, a missing number: null stands for it.
_ELEMENTS: dict[str, Any] = {
    "UINT8": Annotated[int, msgspec.Meta(ge=0, le=255)],
    "FP32": float | None,
}
_OPENING = re.compile(rb"[\s\[]*")


def from_raw(data: bytes | memoryview, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """The tensor that little-endian bytes hold, copied only if they lie askew. Raises BadInput."""
    x = tensor_from_bytes(data, DTYPES[datatype], shape)
    return x if x.flags.aligned else x.copy()  # behind JSON of odd length; runtimes expect better


def from_typed(
    contents: pb.InferTensorContents, datatype: str, shape: Sequence[int]
) -> NDArray[Any]:
    """The tensor in the field of its type. Raises BadInput when it is in another, or too long."""
    field = CONTENTS[datatype]
    others = [known.name for known, _ in contents.ListFields() if known.name != field]
    if others:
        raise BadInput(f"elements of {datatype} belong into {field}, got {', '.join(others)}")
    values = np.asarray(getattr(contents, field))
    if datatype == "UINT8" and len(values) and values.max() > 255:
        raise BadInput(f"elements of UINT8 lie between 0 and 255, got {values.max()}")
    return _shaped(values.astype(DTYPES[datatype], copy=False), shape)


def from_json(data: bytes | memoryview, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """The tensor in a JSON array, nested as its shape or flat. Raises BadInput."""
    opening = _OPENING.match(data)
    depth = opening[0].count(b"[") if opening else 0
    if depth not in (1, len(shape)):
        raise BadInput(
            f"expected 'data' as one flat array or nested {len(shape)} deep, got {depth} deep"
        )
    try:
        values = _DECODERS[datatype, depth].decode(data)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: refused later
            x = np.array(values, dtype=np.float64).astype(DTYPES[datatype])
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: rows of unequal length
        raise BadInput(f"expected 'data' of {datatype} {list(shape)}: {error}") from error
    if depth > 1 and x.shape != tuple(shape):
        raise BadInput(f"expected 'data' of shape {list(shape)}, got {list(x.shape)}")
    return _shaped(x, shape)


def to_typed(x: NDArray[Any], datatype: str) -> pb.InferTensorContents:
    """The elements in the field of their type, row by row."""
    return pb.InferTensorContents(**{CONTENTS[datatype]: x.ravel().tolist()})


def _shaped(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Flat or already shaped values as the shape has them."""
    x: NDArray[Any] = values.ravel()
    expected = 1
    for length in shape:
        expected *= length  # Python integers: cannot overflow
    if x.size != expected:
        raise BadInput(f"a tensor of shape {list(shape)} holds {expected} elements, got {x.size}")
    return x.reshape(tuple(shape))


def _nested(element: Any, depth: int) -> Any:
    return element if depth == 0 else list[_nested(element, depth - 1)]  # type: ignore[misc]


_DECODERS: dict[tuple[str, int], msgspec.json.Decoder[Any]] = {
    (datatype, depth): msgspec.json.Decoder(_nested(element, depth))
    for datatype, element in _ELEMENTS.items()
    for depth in range(1, 5)
}
