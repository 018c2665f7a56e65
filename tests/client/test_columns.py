"""Tables people have -> columns that travel."""

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from amiss_client import InvalidInput
from amiss_client.columns import columns_of, is_missing, to_text
from amiss_export.decode import category_text

ROWS = {"size": [1.5, math.nan, 3.0], "count": [1, 2, 3], "colour": ["red", None, "blue"]}


def plain(table: Any) -> dict[str, list[Any]]:
    """Columns with NaN written as None, so that they compare."""
    return {
        name: [None if is_missing(value) else value for value in list(cells)]
        for name, cells in columns_of(table).items()
    }


@pytest.mark.parametrize(
    "table",
    [
        ROWS,
        {name: np.array(values) for name, values in ROWS.items()},
        [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)],
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS).convert_dtypes(),
        pd.DataFrame(ROWS).astype({"colour": "category"}),
    ],
    ids=["lists", "arrays", "records", "pandas", "pandas-nullable", "pandas-category"],
)
def test_the_same_rows_travel_alike(table: Any) -> None:
    """Lists, arrays, records and data frames of the same rows become the same columns."""
    assert plain(table) == {
        "size": [1.5, None, 3.0],
        "count": [1.0, 2.0, 3.0],
        "colour": ["red", "", "blue"],
    }


def test_a_key_absent_from_a_record_is_missing() -> None:
    """Records may leave keys out: NaN among numbers, the empty text among texts."""
    assert plain([{"a": 1}, {"b": "x"}]) == {"a": [1.0, None], "b": ["", "x"]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, "a", None, 2.0, 2.5], ["1", "a", "", "2", "2.5"]),
        (["a", math.nan], ["a", ""]),
        ([True, False, None], [1.0, 0.0, None]),
        (np.array([True, False]), [1.0, 0.0]),
        ([True, "x"], ["true", "x"]),
        ([pd.NA, pd.NaT, "x"], ["", "", "x"]),
        ([None, None], [None, None]),
        ([Decimal("1.5"), None], [1.5, None]),
        ([10**400, 1], [math.inf, 1.0]),
        ([10**400, 1, None], [math.inf, 1.0, None]),
        (np.ma.array([1.5, 9.0], mask=[False, True]), [1.5, None]),
        (np.array(["2026-01-02", "NaT"], dtype="M8[ns]"), ["2026-01-02 00:00:00", ""]),
        (pd.Series(pd.to_timedelta([1, None], unit="h")), ["1:00:00", ""]),
        (np.array([1, 2], dtype=np.int8), [1.0, 2.0]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1.5], dtype=">f4"), [1.5]),
    ],
)
def test_mixed_cells(values: Any, expected: list[Any]) -> None:
    """Any text makes a column of texts; numbers and missing cells alone stay numbers."""
    assert plain({"c": values}) == {"c": expected}


@pytest.mark.parametrize(
    "value",
    ["red", "", None, math.nan, 1, 1.0, 2.5, True, False, np.float32(3), np.int64(4), np.bool_(1)],
)
def test_categories_are_written_as_the_service_writes_them(value: Any) -> None:
    """The client's text of a category is the one the manifest's categories were written with."""
    assert to_text("c", value) == (category_text(value) or "")


@pytest.mark.parametrize(
    "table",
    [
        "text",
        3,
        [1, 2],
        {"a": 1.0},
        {"a": "one"},
        {"a": np.zeros((2, 2))},
        {"a": [b"x"]},
        {"a": [[1], [2]]},
        {"a": {1, 2}},
        {"a": {0: 1.5, 1: 2.5}},
    ],
)
def test_what_is_no_table_is_refused(table: Any) -> None:
    """A value that is no table, or a column that is no sequence of cells, is InvalidInput."""
    with pytest.raises(InvalidInput, match="expected"):
        columns_of(table)
