"""Examples decode to the very rows they were taken from."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import Column, ImageInput, TableInput
from amiss_export.decode import decode_image, encode_records
from amiss_training.examples import (
    deviating_cells,
    extremes,
    record,
    sample_rows,
    write_image_examples,
    write_table_examples,
)

SPEC = TableInput(
    columns=(
        Column(name="age", kind="number", dtype="float64"),
        Column(
            name="proto", kind="category", dtype="object", categories=("tcp", "never seen", "1")
        ),
        Column(name="rate", kind="number", dtype="float64"),
    )
)
ROWS = np.array(
    [[31, 2, 0.1], [np.nan, 1, -3e38], [1e-7, 0, 16777217], [5, 4, 0]], dtype=np.float32
)


def test_records_decode_to_the_same_row() -> None:
    """Missing numbers, missing and unseen categories and float32 values survive the way back."""
    records = json.loads(json.dumps([record(row, SPEC) for row in ROWS], allow_nan=False))
    np.testing.assert_array_equal(encode_records(records, SPEC).rows, ROWS)


def test_sample_rows_show_texts_of_the_first_columns() -> None:
    """A decoded row is shown by column name, categories by text, up to the number asked for."""
    assert sample_rows(ROWS[:1], SPEC, columns=2) == [{"age": "31", "proto": "tcp"}]
    assert list(sample_rows(ROWS[:1], SPEC, columns=9)[0]) == ["age", "proto", "rate"]


def test_records_hold_category_texts_and_short_numbers() -> None:
    """A code is written as its text, a missing one as null, 0.1 as 0.1."""
    assert record(ROWS[0], SPEC) == {"age": 31.0, "proto": "tcp", "rate": 0.1}
    assert record(ROWS[1], SPEC)["age"] is None
    assert record(ROWS[1], SPEC)["proto"] is None


def test_table_example_is_a_request_body(tmp_path: Path) -> None:
    """The file holds {"records": [...]} with the row as its only record."""
    write_table_examples(tmp_path, ROWS[:2], SPEC, stem="most_normal")
    body = json.loads((tmp_path / "most_normal_1.json").read_text())
    np.testing.assert_array_equal(encode_records(body["records"], SPEC).rows, ROWS[1:2])


def test_image_example_decodes_to_the_same_pixels(tmp_path: Path) -> None:
    """Grey and RGB images come back from their PNG bit for bit."""
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        images = rng.integers(0, 256, (2, channels, 5, 7), dtype=np.uint8)
        write_image_examples(tmp_path, images, stem=f"c{channels}")
        spec = ImageInput(channels=channels, height=5, width=7)
        found = decode_image((tmp_path / f"c{channels}_1.png").read_bytes(), spec)
        np.testing.assert_array_equal(found, images[1])


def test_extremes_are_the_ends_of_the_ranking() -> None:
    """Most anomalous starts at the highest score, most normal at the lowest; ties by position."""
    chosen = extremes(np.array([2, 9, 1, 9, 3], dtype=np.float32), count=2)
    assert chosen["most_anomalous"].tolist() == [1, 3]
    assert chosen["most_normal"].tolist() == [2, 0]
    assert len(extremes(np.zeros(3, dtype=np.float32), count=5)["most_normal"]) == 3


def test_the_corrupted_column_comes_first() -> None:
    """Of three columns the one pushed 8 sd away leads, with the value and what was expected."""
    normals = _normals()
    row = np.array([[0.1, 2, 8]], dtype=np.float32)
    expected = np.array([[0, 2, 0]], dtype=np.float32)
    (cells,) = deviating_cells(row, expected, SPEC, normals=normals, count=2)
    assert [c.column for c in cells] == ["rate", "age"]
    assert (cells[0].value, cells[0].expected) == ("8", "0")
    assert 7 < cells[0].deviation < 9


def test_a_rare_category_deviates_more_than_a_common_one() -> None:
    """A wrong category weighs by its rarity among the normals; the expected one weighs nothing."""
    normals = _normals()
    rows = np.array([[0, 2, 0], [0, 3, 0], [0, 0, 0]], dtype=np.float32)
    expected = np.array([[0, 2, 0], [0, 2, 0], [0, 2, 0]], dtype=np.float32)
    found = [
        {c.column: c for c in cells}["proto"]
        for cells in deviating_cells(rows, expected, SPEC, normals=normals, count=3)
    ]
    assert found[0].deviation == 0
    assert 0 < found[1].deviation < found[2].deviation
    assert found[2].value == "never seen"


def test_a_missing_number_is_shown_as_missing() -> None:
    """A NaN where the normals have none deviates and reads 'missing'."""
    rows = np.array([[np.nan, 2, 0]], dtype=np.float32)
    expected = np.array([[0, 2, 0]], dtype=np.float32)
    (cells,) = deviating_cells(rows, expected, SPEC, normals=_normals(), count=1)
    assert (cells[0].column, cells[0].value) == ("age", "missing")
    assert cells[0].deviation > 5


def _normals() -> NDArray[np.float32]:
    """500 rows: standard normal numbers; the category is 'tcp' in nine of ten."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 3)).astype(np.float32)
    rows[:, 1] = np.where(np.arange(500) % 10 == 0, 3, 2)
    return rows
