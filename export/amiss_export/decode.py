"""From what people send to what the graph takes. One implementation for training and serving.

Images: JPEG, PNG and whatever else Pillow reads safely -> uint8 (channels, height, width).
Tables: columns by name -> float32 (n, d), categories as codes, missing numbers as NaN.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from amiss_export.bundle import Column, ImageInput, TableInput
from amiss_export.errors import BadInput

UNSEEN, MISSING, FIRST_CATEGORY = 0, 1, 2
MAX_PIXELS = 50_000_000
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")

Values = Sequence[Any] | NDArray[Any]


@dataclass(frozen=True)
class EncodedRows:
    """rows: (n, d) float32, ready for the graph, and how many cells were unseen or missing."""

    rows: NDArray[np.float32]
    unseen_categories: int
    missing_values: int


def decode_image(
    data: bytes, spec: ImageInput, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """The encoded image as uint8 (channels, height, width), upright and resized to the detector.

    Raises BadInput when the bytes are no image, are cut off, or hold more than max_pixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        if image.width * image.height > max_pixels:
            raise BadInput(
                f"image of {image.width}x{image.height} is larger than {max_pixels} pixels; "
                "send a smaller one"
            )
        return fit_image(image, spec)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's words for an unknown format name a Python object: they help nobody.
        why = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise BadInput(
            f"expected an image ({', '.join(IMAGE_FORMATS)}), got {len(data)} bytes that cannot "
            f"be decoded{why}"
        ) from error


def fit_image(image: Image.Image, spec: ImageInput) -> NDArray[np.uint8]:
    """A Pillow image as uint8 (channels, height, width): the one way images are resized."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise BadInput(
            f"expected 8 or 16 bits a channel, got mode {upright.mode}; convert the image"
        )
    converted = upright.convert("L" if spec.channels == 1 else "RGB")
    if converted.size != (spec.width, spec.height):
        converted = converted.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted, dtype=np.uint8)
    return pixels[None] if spec.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def check_images(tensor: NDArray[Any], spec: ImageInput) -> NDArray[np.uint8]:
    """The tensor itself, when it is uint8 (n, channels, height, width) with n >= 1."""
    expected = (spec.channels, spec.height, spec.width)
    if tensor.dtype != np.uint8 or tensor.ndim != 4 or tensor.shape[1:] != expected:
        raise BadInput(
            f"expected a uint8 tensor (n, {', '.join(map(str, expected))}), "
            f"got {tensor.dtype} {tensor.shape}"
        )
    if len(tensor) == 0:
        raise BadInput("expected at least one image, got 0")
    return tensor


def check_rows(tensor: NDArray[Any], spec: TableInput) -> NDArray[np.float32]:
    """The tensor itself, when it is float32 (n, d) and every cell is one the detector knows.

    NaN is a missing number, accepted where the column's policy imputes it.
    """
    d = len(spec.columns)
    if tensor.dtype != np.float32 or tensor.ndim != 2 or tensor.shape[1] != d:
        raise BadInput(f"expected a float32 tensor (n, {d}), got {tensor.dtype} {tensor.shape}")
    if len(tensor) == 0:
        raise BadInput("expected at least one row, got 0")
    if np.isfinite(tensor).all() and not any(c.kind == "category" for c in spec.columns):
        return tensor
    for j, column in enumerate(spec.columns):
        _check_column(tensor[:, j], column)
    return tensor


def encode_columns(columns: Mapping[str, Values], spec: TableInput) -> EncodedRows:
    """Columns by name -> rows for the graph. Columns the detector does not know are ignored.

    Raises BadInput naming the column, and the row where it can.
    """
    absent = [c.name for c in spec.columns if c.name not in columns]
    if absent:
        raise BadInput(
            f"missing column(s) {_some(absent)}; the detector reads "
            f"{_some([c.name for c in spec.columns])}"
        )
    lengths = {len(columns[c.name]) for c in spec.columns}
    if len(lengths) != 1:
        raise BadInput(f"columns must be of equal length, got lengths {sorted(lengths)}")
    (n,) = lengths
    if n == 0:
        raise BadInput("expected at least one row, got 0")
    rows = np.empty((n, len(spec.columns)), dtype=np.float32)
    unseen = missing = 0
    for j, column in enumerate(spec.columns):
        encode = _encode_numbers if column.kind == "number" else _encode_categories
        rows[:, j] = encode(columns[column.name], column)
        _check_column(rows[:, j], column)
        if column.kind == "number":
            missing += int(np.isnan(rows[:, j]).sum())
        else:
            missing += int((rows[:, j] == MISSING).sum())
            unseen += int((rows[:, j] == UNSEEN).sum())
    return EncodedRows(rows, unseen, missing)


def encode_records(records: Sequence[Mapping[str, Any]], spec: TableInput) -> EncodedRows:
    """Records such as {"age": 31, "sex": "f"} -> rows for the graph. null or absent = missing."""
    if not records:
        raise BadInput("expected at least one record, got 0")
    names = [c.name for c in spec.columns]
    known = {*names, *spec.source_columns, *(c.name for c in spec.dropped)}
    for i, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise BadInput(f"record {i}: expected an object of column: value, got {record!r:.80}")
        unknown = [name for name in record if name not in known]
        if unknown:
            raise BadInput(
                f"record {i}: unknown column(s) {_some(unknown)}; expected {_some(names)}"
            )
    return encode_columns({name: [r.get(name) for r in records] for name in names}, spec)


def category_text(value: Any) -> str | None:
    """How a category's value is written in the manifest: None when missing, 1 and 1.0 alike."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    missing = value is None or bool(value != value)  # noqa: PLR0124  NaN and NaT differ from themselves
    return None if missing else str(value)


def _encode_categories(values: Values, column: Column) -> NDArray[np.float32]:
    codes: dict[str | None, int] = {t: i + FIRST_CATEGORY for i, t in enumerate(column.categories)}
    codes[None] = MISSING
    cells = values.tolist() if isinstance(values, np.ndarray) else values
    memo: dict[Any, int] = {}  # a column repeats few values: convert each once

    def code(value: Any) -> int:
        key = (type(value), value)
        found = memo.get(key)
        if found is None:
            found = memo[key] = codes.get(category_text(value), UNSEEN)
        return found

    try:
        return np.fromiter((code(v) for v in cells), dtype=np.float32, count=len(cells))
    except TypeError as error:
        raise BadInput(f"column {column.name!r}: expected text, got {error}") from error


def _encode_numbers(values: Values, column: Column) -> NDArray[np.float32]:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return _narrow(values.astype(np.float64), column)
    numbers = np.empty(len(values), dtype=np.float64)
    for i, value in enumerate(values):
        if value is None or value == "":
            numbers[i] = np.nan
        elif isinstance(value, (int, float, np.number, bool, np.bool_)):
            numbers[i] = _as_float(value)
        else:
            raise BadInput(f"column {column.name!r}, row {i}: expected a number, got {value!r:.80}")
    return _narrow(numbers, column)


def _as_float(value: Any) -> float:
    """The number, infinite when it is too large for a float: `_narrow` refuses it by column."""
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _narrow(numbers: NDArray[np.float64], column: Column) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32)
    if np.isinf(narrow).any():
        row = int(np.flatnonzero(np.isinf(narrow))[0])
        raise BadInput(
            f"column {column.name!r}, row {row}: expected a finite number that float32 holds, "
            f"got {numbers[row]}"
        )
    return narrow


def _check_column(cells: NDArray[np.float32], column: Column) -> None:
    if column.kind == "category":
        top = FIRST_CATEGORY + len(column.categories)
        bad = ~((cells >= 0) & (cells < top) & (cells == np.floor(cells)))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise BadInput(
                f"column {column.name!r}, row {row}: expected a category code 0..{top - 1}, "
                f"got {cells[row]}"
            )
        empty = cells == MISSING
    else:
        if np.isinf(cells).any():
            row = int(np.flatnonzero(np.isinf(cells))[0])
            raise BadInput(
                f"column {column.name!r}, row {row}: expected a finite number, got {cells[row]}"
            )
        empty = np.isnan(cells)
    if column.missing == "refuse" and empty.any():
        row = int(np.flatnonzero(empty)[0])
        raise BadInput(f"column {column.name!r}, row {row}: expected a value, got none")


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
