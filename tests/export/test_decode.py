"""What people send becomes what the graph takes, in one way."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from amiss_export.bundle import Column, ImageInput, TableInput
from amiss_export.decode import (
    MISSING,
    UNSEEN,
    category_text,
    check_images,
    check_rows,
    decode_image,
    encode_columns,
    encode_records,
)
from amiss_export.errors import BadInput

GREY = ImageInput(channels=1, height=4, width=6)
COLOUR = ImageInput(channels=3, height=4, width=6)
TABLE = TableInput(
    columns=(
        Column(name="age", kind="number", dtype="int64"),
        Column(name="sex", kind="category", dtype="str", categories=("f", "m")),
        Column(name="dose", kind="number", dtype="float64", missing="refuse"),
    ),
    source_columns=("age", "sex", "dose", "label"),
    label_column="label",
)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    """A PNG of the detector's size comes out as the very pixels that went in."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    assert np.array_equal(decode_image(encoded(Image.fromarray(pixels)), GREY), pixels[None])
    rgb = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    found = decode_image(encoded(Image.fromarray(rgb)), COLOUR)
    assert np.array_equal(found, rgb.transpose(2, 0, 1))


def test_an_image_is_resized_by_pillows_bilinear_filter() -> None:
    """A larger image is what Pillow's bilinear resize makes of it."""
    big = Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 30), dtype=np.uint8))
    expected = np.asarray(big.resize((6, 4), Image.Resampling.BILINEAR))
    assert np.array_equal(decode_image(encoded(big), GREY)[0], expected)


def test_a_camera_rotation_is_undone() -> None:
    """An image whose EXIF says 'rotated' is turned upright before it is resized."""
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = decode_image(encoded(image, exif=exif), GREY)
    assert np.array_equal(found[0], np.asarray(image)[::-1, ::-1])


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    """A 16-bit PNG is read as its 8 most significant bits."""
    deep = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
    assert np.array_equal(decode_image(encoded(Image.fromarray(deep)), GREY)[0], deep >> 8)


@pytest.mark.parametrize(
    "data",
    [b"", b"just text", b"\x89PNG\r\n\x1a\n", encoded(Image.new("L", (64, 64), 9))[:60]],
    ids=["empty", "text", "header-only", "cut-off"],
)
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    """Bytes that cannot be decoded raise one error that says what was expected."""
    with pytest.raises(BadInput, match="expected an image"):
        decode_image(data, GREY)


def test_a_huge_image_is_refused_before_it_is_decoded() -> None:
    """An image of more pixels than allowed is refused with its size."""
    with pytest.raises(BadInput, match="100x100 is larger than 9999 pixels"):
        decode_image(encoded(Image.new("L", (100, 100))), GREY, max_pixels=9_999)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that claims more pixels than Pillow allows is one clear error, not a traceback."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadInput, match="expected an image"):
        decode_image(encoded(Image.new("L", (100, 100))), GREY)


def test_records_become_rows_with_codes() -> None:
    """Numbers travel as they are, categories as 2 + index, absent as missing, unknown as unseen."""
    found = encode_records(
        [
            {"age": 31, "sex": "f", "dose": 0.5},
            {"age": None, "sex": "x", "dose": 1},
            {"sex": None, "dose": 2.0, "label": "ignored"},
        ],
        TABLE,
    )
    expected = [[31, 2, 0.5], [math.nan, UNSEEN, 1], [math.nan, MISSING, 2]]
    assert np.array_equal(found.rows, np.array(expected, dtype=np.float32), equal_nan=True)
    assert (found.unseen_categories, found.missing_values) == (1, 3)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "at least one record"),
        ([["age"]], "record 0: expected an object"),
        ([{"agee": 1}], "record 0: unknown column\\(s\\) 'agee'; expected 'age', 'sex', 'dose'"),
        ([{"age": "old", "dose": 1}], "column 'age', row 0: expected a number, got 'old'"),
        ([{"age": 1, "dose": 1}, {"age": 1}], "column 'dose', row 1: expected a value, got none"),
        ([{"age": 10**400, "dose": 1}], "column 'age', row 0: expected a finite number"),
        ([{"age": 1e300, "dose": 1}], "column 'age', row 0: expected a finite number"),
        ([{"age": math.inf, "dose": 1}], "column 'age', row 0: expected a finite number"),
        ([{"age": True, "sex": ["f"], "dose": 1}], "column 'sex'"),
    ],
)
def test_bad_records_name_record_column_and_value(records: list[object], message: str) -> None:
    """Whatever is wrong with a record, the error names where and what."""
    with pytest.raises(BadInput, match=message):
        encode_records(records, TABLE)  # type: ignore[arg-type]  # what people really send


def test_columns_must_be_there_and_of_equal_length() -> None:
    """A missing column and columns of different lengths are refused by name and length."""
    with pytest.raises(BadInput, match=r"missing column\(s\) 'dose'"):
        encode_columns({"age": [1], "sex": ["f"]}, TABLE)
    with pytest.raises(BadInput, match=r"equal length, got lengths \[1, 2\]"):
        encode_columns({"age": [1, 2], "sex": ["f"], "dose": [1, 1]}, TABLE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (" a ", "a"),
        ("", None),
        (None, None),
        (math.nan, None),
        (1, "1"),
        (1.0, "1"),
        (np.float32(2.0), "2"),
        (1.5, "1.5"),
        (True, "true"),
        (np.int64(7), "7"),
    ],
)
def test_a_category_is_written_the_same_however_it_arrives(value: object, text: str) -> None:
    """1, 1.0 and '1' name one category; empty, None and NaN are missing."""
    assert category_text(value) == text


def test_raw_rows_are_checked_cell_by_cell() -> None:
    """A raw tensor with a bad code, an infinity or a refused NaN names column and row."""
    good = np.array([[1, 2, 0.5], [math.nan, 0, 1]], dtype=np.float32)
    assert check_rows(good, TABLE) is good
    for cell, value, message in (
        ((0, 1), 4, r"column 'sex', row 0: expected a category code 0\.\.3, got 4"),
        ((1, 1), 1.5, "category code"),
        ((1, 1), math.nan, "category code"),
        ((0, 0), math.inf, "column 'age', row 0: expected a finite number"),
        ((1, 2), math.nan, "column 'dose', row 1: expected a value"),
    ):
        bad = good.copy()
        bad[cell] = value
        with pytest.raises(BadInput, match=message):
            check_rows(bad, TABLE)


def test_raw_tensors_of_the_wrong_shape_or_type_are_refused() -> None:
    """A wrong dtype, rank, width or no rows at all is refused, naming both sides."""
    for bad in (np.zeros((2, 2)), np.zeros((2, 2), np.float32), np.zeros(3, np.float32)):
        with pytest.raises(BadInput, match=r"expected a float32 tensor \(n, 3\)"):
            check_rows(bad, TABLE)
    with pytest.raises(BadInput, match="at least one row"):
        check_rows(np.zeros((0, 3), np.float32), TABLE)
    for bad in (np.zeros((1, 1, 4, 6)), np.zeros((1, 4, 6), np.uint8)):
        with pytest.raises(BadInput, match=r"expected a uint8 tensor \(n, 1, 4, 6\)"):
            check_images(bad, GREY)
    with pytest.raises(BadInput, match="at least one image"):
        check_images(np.zeros((0, 1, 4, 6), np.uint8), GREY)
