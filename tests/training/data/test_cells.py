"""Cells: what counts as a number, as missing, as text."""

import numpy as np
import pyarrow as pa
import pytest

from amiss_training.data import cells


def column(*values: object) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


def test_text_numbers_are_parsed_around_blanks_and_gaps() -> None:
    """Blanks around a number are ignored and every spelling of missing is NaN."""
    floats, strange = cells.numbers(column(" 1.5", "-2e3", "", "NA", "?", "NaN", "+.5"))
    np.testing.assert_array_equal(floats, [1.5, -2000, np.nan, np.nan, np.nan, np.nan, 0.5])
    assert not strange.any()


@pytest.mark.parametrize("text", ["abc", "1_000", "0x10", "1,5", "1.2.3", "--1", "12 kg"])
def test_what_is_no_number_is_marked(text: str) -> None:
    """Text that only some parsers take for a number is no number."""
    floats, strange = cells.numbers(column("1", text, ""))
    assert strange.tolist() == [False, True, False]
    assert np.isnan(floats[1])


def test_truth_values_are_one_and_zero() -> None:
    """A column of true and false is numbers, in a CSV as in Parquet."""
    for found in (column("True", "false", ""), column(True, False, None)):
        floats, strange = cells.numbers(found)
        np.testing.assert_array_equal(floats, [1, 0, np.nan])
        assert not strange.any()
        assert cells.dtype_of(found, floats) == "bool"


def test_null_in_text_is_missing() -> None:
    """Parquet's null among text numbers or truth values is a missing one, not a strange one."""
    for found, expected in (
        (column("1", "NA", None), [1, np.nan, np.nan]),
        (column("true", None), [1, np.nan]),
    ):
        floats, strange = cells.numbers(found)
        np.testing.assert_array_equal(floats, expected)
        assert not strange.any()


def test_true_among_numbers_is_no_number() -> None:
    """'true' in a column of numbers is not quietly a 1."""
    _, strange = cells.numbers(column("1", "true"))
    assert strange.tolist() == [False, True]


def test_texts_keep_leading_zeros_and_write_whole_floats_as_integers() -> None:
    """Category 007 stays 007; 7.0 from a float column is the same category as 7."""
    assert cells.texts(column("007", "a", "")).tolist() == ["007", "a", ""]
    assert cells.texts(column(7.0, None, 2.5)).tolist() == ["7", "", "2.5"]


def test_dtype_is_what_was_read() -> None:
    """Parquet's own type is kept; text is named by the narrowest type that holds it."""
    halves = pa.chunked_array([pa.array([1.5], type=pa.float32())])
    assert cells.dtype_of(halves, np.array([1.5])) == "float32"
    assert cells.dtype_of(column("1", "2"), np.array([1.0, 2.0])) == "int64"
    assert cells.dtype_of(column("1", ""), np.array([1.0, np.nan])) == "float64"
