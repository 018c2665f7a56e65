"""What becomes a tensor, what is refused, and that limits hold before memory is taken."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amiss_export.bundle import Column, ImageInput, TableInput
from amiss_export.errors import BadInput
from amiss_serving.errors import TooLarge
from amiss_serving.inputs import (
    Limits,
    from_columns,
    from_images,
    from_records,
    from_rows,
    from_tensor,
    tensor_from_bytes,
)

LIMITS = Limits(max_rows=4, max_bytes=1000, max_pixels=10_000)
IMAGE = ImageInput(channels=1, height=4, width=6)
TABLE = TableInput(
    columns=(
        Column(name="size", kind="number", dtype="float64"),
        Column(name="colour", kind="category", dtype="str", categories=("red", "blue")),
    )
)


def png(width: int = 6, height: int = 4) -> bytes:
    stream = io.BytesIO()
    pixels = np.arange(width * height, dtype=np.uint8).reshape(height, width)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_pictures_come_out_in_order_and_size() -> None:
    """A picture of the right size is its own pixels; another is resized to the same shape."""
    x = from_images([png(), png(60, 40)], IMAGE, LIMITS).x
    assert x.shape == (2, 1, 4, 6)
    np.testing.assert_array_equal(x[0, 0].ravel(), np.arange(24))


@pytest.mark.parametrize(
    ("contents", "error", "message"),
    [
        ([png(), b"text"], BadInput, "image 1: expected an image"),
        ([png()[:-20]], BadInput, "image 0"),
        ([png(200, 200)], BadInput, "larger than 10000 pixels"),
        ([], BadInput, "at least one image"),
        ([png()] * 5, TooLarge, "4 rows, got 5"),
    ],
)
def test_a_bad_picture_is_named(
    contents: list[bytes], error: type[Exception], message: str
) -> None:
    """The refusal says which picture and why."""
    with pytest.raises(error, match=message):
        from_images(contents, IMAGE, LIMITS)


def test_decoded_size_is_bounded_before_decoding() -> None:
    """Small files for a large detector are refused by what they would become."""
    large = ImageInput(channels=3, height=20, width=20)
    with pytest.raises(TooLarge, match="1000 bytes once decoded, got 2400"):
        from_images([b"", b""], large, LIMITS)


def test_cells_that_were_unseen_or_missing_are_counted_alike_however_they_come() -> None:
    """Records, columns, rows and a raw tensor of the same table give the same rows and counts."""
    records = from_records(
        [{"size": 1, "colour": "red"}, {"colour": "green"}, {"size": 3}], TABLE, LIMITS
    )
    columns = from_columns({"size": [1, None, 3], "colour": ["red", "green", ""]}, TABLE, LIMITS)
    listed = from_rows([[1, 2], [None, 0], [3, None]], TABLE, LIMITS)
    raw = from_tensor(np.array([[1, 2], [np.nan, 0], [3, 1]], np.float32), TABLE, LIMITS)
    for decoded in (records, columns, listed, raw):
        np.testing.assert_array_equal(decoded.x, raw.x)
        assert (decoded.unseen_categories, decoded.missing_values) == (1, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0]], "row 0: expected 2 values, got 1"),
        ([[1.0, 9.0]], "category code 0..3, got 9"),
        ([[1e39, 2.0]], "finite"),
        ([], "at least one row"),
    ],
)
def test_bad_rows_are_named(rows: list[list[float | None]], message: str) -> None:
    """The refusal says what was expected and what arrived."""
    with pytest.raises(BadInput, match=message):
        from_rows(rows, TABLE, LIMITS)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_no_number(value: float) -> None:
    """An infinite cell is refused, in every form it can come."""
    with pytest.raises(BadInput, match="finite"):
        from_tensor(np.array([[value, 2]], np.float32), TABLE, LIMITS)
    with pytest.raises(BadInput, match="finite"):
        from_columns({"size": np.array([value]), "colour": ["red"]}, TABLE, LIMITS)


def test_the_wrong_kind_of_input_says_what_to_send() -> None:
    """Pictures for a table and rows for a picture detector are refused with the right way."""
    with pytest.raises(BadInput, match="reads tables"):
        from_images([png()], TABLE, LIMITS)
    with pytest.raises(BadInput, match="reads images"):
        from_records([{}], IMAGE, LIMITS)
    with pytest.raises(BadInput, match="reads images"):
        from_rows([[1.0]], IMAGE, LIMITS)
    with pytest.raises(BadInput, match="uint8 tensor"):
        from_tensor(np.zeros((1, 2), np.float32), IMAGE, LIMITS)


@pytest.mark.parametrize("size", [5, 10**6])
def test_too_many_rows_are_refused_in_every_form(size: int) -> None:
    """More than max_rows is TooLarge, not memory."""
    column: Any = np.zeros(size)
    with pytest.raises(TooLarge):
        from_columns({"size": column, "colour": column}, TABLE, LIMITS)
    with pytest.raises(TooLarge):
        from_tensor(np.zeros((size, 2), np.float32), TABLE, LIMITS)
    with pytest.raises(TooLarge):
        from_records([{}] * size, TABLE, LIMITS)


@pytest.mark.parametrize(
    "shape",
    [(3,), (-1, 4), (2**62, 2**62), (2, 2, 1, 1, 1), (), (0,), (2, 3), (0, 2**62), (2**62, 0)],
)
def test_a_shape_that_does_not_fit_its_bytes_is_refused(shape: tuple[int, ...]) -> None:
    """Negative, overflowing, too many or simply wrong lengths never reach numpy."""
    with pytest.raises(BadInput):
        tensor_from_bytes(b"\0" * 16, "<f4", shape)


def test_bytes_become_the_tensor_they_hold() -> None:
    """Little-endian bytes and a shape give back the array."""
    x = np.arange(6, dtype="<f4").reshape(2, 3)
    np.testing.assert_array_equal(tensor_from_bytes(x.tobytes(), "<f4", (2, 3)), x)
