"""From what a door received to what the engine takes; the decoding is amiss_export.decode."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.decode import (
    MISSING,
    UNSEEN,
    EncodedRows,
    Values,
    check_images,
    check_rows,
    decode_image,
    encode_columns,
    encode_records,
)
from amiss_export.errors import BadInput
from amiss_serving.errors import TooLarge

Spec = ImageInput | TableInput


@dataclass(frozen=True)
class Limits:
    """What one request may hold: rows, bytes as sent and once decoded, pixels in a picture."""

    max_rows: int
    max_bytes: int
    max_pixels: int


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """x: uint8 (n, c, h, w) or float32 (n, d), and how many cells were unseen or missing."""

    x: NDArray[Any]
    unseen_categories: int = 0
    missing_values: int = 0


def from_images(contents: Sequence[bytes], spec: Spec, limits: Limits) -> Decoded:
    """Encoded pictures, resized to the detector. Raises BadInput naming the picture."""
    image = _image(spec)
    check_size(len(contents), image.channels * image.height * image.width, limits)
    if not contents:
        raise BadInput("expected at least one image, got 0")
    x = np.empty((len(contents), image.channels, image.height, image.width), dtype=np.uint8)
    for i, data in enumerate(contents):
        try:
            x[i] = decode_image(data, image, max_pixels=limits.max_pixels)
        except BadInput as error:
            raise BadInput(f"image {i}: {error}") from error
    return Decoded(x)


def from_tensor(x: NDArray[Any], spec: Spec, limits: Limits) -> Decoded:
    """A raw tensor, checked against the detector."""
    check_size(len(x) if x.ndim else 0, 0, limits)
    if isinstance(spec, ImageInput):
        return Decoded(check_images(x, spec))
    rows = check_rows(x, spec)
    category = np.array([column.kind == "category" for column in spec.columns])
    unseen = missing = 0
    if category.any():
        codes = rows[:, category]
        unseen, missing = int((codes == UNSEEN).sum()), int((codes == MISSING).sum())
    return Decoded(rows, unseen, missing + int(np.isnan(rows).sum()))


def from_columns(columns: Mapping[str, Values], spec: Spec, limits: Limits) -> Decoded:
    """Columns by name, as rows for the graph."""
    table = _table(spec)
    check_size(max(map(len, columns.values()), default=0), 4 * len(table.columns), limits)
    return _decoded(encode_columns(columns, table))


def from_records(records: Sequence[Mapping[str, Any]], spec: Spec, limits: Limits) -> Decoded:
    """Records of column: value, as rows for the graph."""
    table = _table(spec)
    check_size(len(records), 4 * len(table.columns), limits)
    return _decoded(encode_records(records, table))


def from_rows(rows: Sequence[Sequence[float | None]], spec: Spec, limits: Limits) -> Decoded:
    """Lists of raw values in the detector's column order, categories as codes, None = missing."""
    table = _table(spec)
    d = len(table.columns)
    check_size(len(rows), 4 * d, limits)
    for i, row in enumerate(rows):
        if len(row) != d:
            raise BadInput(f"row {i}: expected {d} values, got {len(row)}")
    if not rows:
        raise BadInput("expected at least one row, got 0")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: refused below
        x = np.array(rows, dtype=np.float64).astype(np.float32)
    for j, column in enumerate(table.columns):
        if column.kind == "category":
            x[np.isnan(x[:, j]), j] = MISSING
    return from_tensor(x, spec, limits)


def tensor_from_bytes(data: bytes | memoryview, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    """The tensor that little-endian bytes hold, without a copy. dtype: '<u1' or '<f4'.

    Raises BadInput when shape and length disagree.
    """
    if not 1 <= len(shape) <= 4 or any(length < 1 for length in shape):
        raise BadInput(f"expected a shape of 1 to 4 lengths >= 1, got {list(shape)[:8]}")
    expected = math.prod(shape) * np.dtype(dtype).itemsize  # Python integers: cannot overflow
    if expected != len(data):
        raise BadInput(
            f"a tensor of shape {list(shape)} holds {expected} bytes, got {len(data)} bytes"
        )
    tensor: NDArray[Any] = np.frombuffer(data, dtype=dtype).reshape(tuple(shape))
    return tensor


def check_size(rows: int, row_bytes: int, limits: Limits) -> None:
    """Nothing, when that many decoded rows may be held. Raises TooLarge, before they are."""
    if rows > limits.max_rows:
        raise TooLarge(
            f"a request may hold {limits.max_rows} rows, got {rows}; split it (Client: "
            "max_rows_per_request, amiss score: --batch-rows)"
        )
    if rows * row_bytes > limits.max_bytes:
        raise TooLarge(
            f"a request may hold {limits.max_bytes} bytes once decoded, got {rows * row_bytes}; "
            "split it"
        )


def _decoded(encoded: EncodedRows) -> Decoded:
    return Decoded(encoded.rows, encoded.unseen_categories, encoded.missing_values)


def _image(spec: Spec) -> ImageInput:
    if isinstance(spec, ImageInput):
        return spec
    raise BadInput("this detector reads tables: send columns, records or rows, not images")


def _table(spec: Spec) -> TableInput:
    if isinstance(spec, TableInput):
        return spec
    raise BadInput("this detector reads images: send images or a uint8 tensor, not a table")
