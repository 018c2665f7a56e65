"""Columns: what they are is told by training rows, shown to people, and enforced on cells."""

import re

import numpy as np
import pyarrow as pa
import pytest

from amiss_export.bundle import TableInput
from amiss_export.errors import BadInput
from amiss_training.data.columns import columns_of, describe, infer_table, row_keys

N = 300
TABLE = pa.table(
    {
        "": [str(i) for i in range(N)],
        "weight": [f"{i / 7:.4f}" for i in range(N)],
        "colour": [("red", "blue", "")[i % 3] for i in range(N)],
        "code": [("007", "008")[i % 2] for i in range(N)],
        "flag": pa.array([i % 2 == 0 for i in range(N)]),
        "same": ["3"] * N,
        "void": [""] * N,
        "id": [f"row-{i}" for i in range(N)],
        "y": ["0"] * N,
    }
)


def infer(table: pa.Table = TABLE, rows: np.ndarray | None = None, **options: object) -> TableInput:
    rows = np.arange(len(table)) if rows is None else rows
    return infer_table(table, rows=rows, label_column="y", **options)


def place(row: int) -> str:
    return f"f.csv: line {row + 2}"


def test_kinds_and_reasons() -> None:
    """Numbers, categories and truth values are told apart; what is dropped has a reason."""
    spec = infer()
    kinds = {c.name: (c.kind, c.dtype, c.categories) for c in spec.columns}
    assert kinds == {
        "weight": ("number", "float64", ()),
        "colour": ("category", "str", ("blue", "red")),
        "code": ("number", "int64", ()),
        "flag": ("number", "bool", ()),
    }
    reasons = {d.name: d.reason for d in spec.dropped}
    assert reasons == {
        "": "no name in the header: a row index?",
        "same": "constant: '3' in every training row",
        "void": "no value in any training row",
        "id": "text with 300 distinct values in 300 training rows: an identifier?",
    }
    assert spec.source_columns == tuple(TABLE.column_names)
    assert spec.label_column == "y"


def test_named_category_keeps_its_text() -> None:
    """A column named as category keeps 007 and 7 apart."""
    table = pa.table({"code": ["007", "7", ""], "y": ["0"] * 3})
    (code,) = infer(table, category_columns=("code",)).columns
    assert (code.kind, code.categories) == ("category", ("007", "7"))


def test_only_training_rows_count() -> None:
    """What is constant, or text, outside the training rows does not show."""
    table = pa.table({"a": ["1", "2", "1", "x"], "b": ["1", "1", "1", "2"], "y": ["0"] * 4})
    spec = infer(table, np.array([0, 1, 2]))
    assert [c.name for c in spec.columns] == ["a"]
    assert spec.columns[0].kind == "number"
    with pytest.raises(BadInput, match=re.escape("f.csv: line 5, column 'a': expected a finite")):
        columns_of(table, spec, where=place)


def test_text_that_differs_in_every_row_is_an_identifier() -> None:
    """40 names in 40 rows are dropped, 39 names in 40 rows and 3 colours in 3 rows are not."""
    names = pa.table({"a": [f"n{i}" for i in range(40)], "b": [f"n{i % 39}" for i in range(40)]})
    assert [d.name for d in infer_table(names, rows=np.arange(40)).dropped] == ["a"]
    colours = pa.table({"a": ["r", "g", "b"]})
    assert infer_table(colours, rows=np.arange(3)).dropped == ()


def test_a_typo_among_numbers_is_named() -> None:
    """One bad cell does not quietly turn a column of numbers into an identifier."""
    table = pa.table({"a": [*map(str, range(299)), "1O"], "y": ["0"] * N})
    with pytest.raises(BadInput, match=r"line 301, column 'a': expected a number.*'1O'"):
        infer(table, where=place)


def test_a_typo_among_few_numbers_is_named_too() -> None:
    """Ages 0 to 59 with one typing error stay numbers; codes 1 to 9 and X are categories."""
    ages = pa.table({"a": [str(i % 60) for i in range(299)] + ["1O"], "y": ["0"] * N})
    with pytest.raises(BadInput, match=r"line 301, column 'a': expected a number.*'1O'"):
        infer(ages, where=place)
    codes = pa.table({"a": [str(i % 9) for i in range(299)] + ["X"], "y": ["0"] * N})
    assert infer(codes).columns[0].kind == "category"


def test_pandas_row_index_is_no_feature() -> None:
    """The index that pandas writes into a Parquet file is dropped and tells no rows apart."""
    table = pa.table({"a": [1, 2, 1], "__index_level_0__": [0, 1, 2]})
    spec = infer_table(table, rows=np.arange(3))
    assert [c.name for c in spec.columns] == ["a"]
    assert [d.name for d in spec.dropped] == ["__index_level_0__"]
    keys = row_keys(table, where=place)
    assert (keys[0] == keys[2]).all()


def test_constant_with_gaps_is_kept() -> None:
    """A number that is either 3 or missing still tells rows apart."""
    assert [c.name for c in infer(pa.table({"a": ["3", ""], "y": ["0", "0"]})).columns] == ["a"]


def test_constant_as_the_graph_sees_it() -> None:
    """Numbers that float32 cannot tell apart are constant."""
    table = pa.table({"a": [1e9, 1e9 + 1], "b": [1.0, 2.0], "y": ["0", "0"]})
    assert [c.name for c in infer(table).columns] == ["b"]


def test_nothing_left_is_refused() -> None:
    """A table of constants is refused with the reasons."""
    table = pa.table({"a": ["1", "1"], "y": ["0", "0"]})
    with pytest.raises(BadInput, match=r"f\.csv: no column is left.*'a' \(constant: '1'"):
        infer(table, name="f.csv")


def test_describe_shows_every_column_in_file_order() -> None:
    """One line a column, in file order, with kind, type or reason, and the label."""
    lines = describe(infer())
    assert [line.split("  ")[0].strip() for line in lines] == TABLE.column_names
    assert lines[1].split() == ["weight", "number", "float64"]
    assert lines[2].split(maxsplit=2)[1:] == ["category", "2 values: 'blue', 'red'"]
    assert "constant" in lines[5]
    assert lines[-1].split() == ["y", "label"]


@pytest.mark.parametrize("cell", ["abc", "inf", "1e39"])
def test_a_cell_float32_cannot_hold_is_named(cell: str) -> None:
    """Text, infinity and overflow in a number column are refused with line, column and cell."""
    spec = infer()
    table = TABLE.set_column(1, "weight", pa.array(["1"] * (N - 1) + [cell]))
    with pytest.raises(BadInput) as refusal:
        columns_of(table, spec, where=place)
    assert str(refusal.value) == (
        "f.csv: line 301, column 'weight': expected a finite number that float32 holds, "
        f"got '{cell}'"
    )


def test_refused_gap_is_named() -> None:
    """With missing=refuse an empty cell is an error with line and column, of either kind."""
    full = pa.table({"a": ["1", "2"], "b": ["x", "y"], "y": ["0", "0"]})
    spec = infer(full, missing="refuse")
    for name in ("a", "b"):
        i = full.column_names.index(name)
        with pytest.raises(BadInput, match=f"line 3, column '{name}': expected a value, got none"):
            columns_of(full.set_column(i, name, pa.array(["1", ""])), spec, where=place)


def test_row_keys_are_equal_where_the_detector_could_not_tell() -> None:
    """An identifier and a different spelling of one number do not make two rows differ."""
    n = 300
    table = pa.table(
        {"id": [f"r{i}" for i in range(n)], "a": ["1", "1.0"] * 150, "b": ["x", "y", "x"] * 100}
    )
    keys = row_keys(table, where=place)
    assert (keys[0] == keys[5]).all()
    assert (keys[0] != keys[1]).any()
    as_text = row_keys(table, category_columns=("a",), where=place)
    assert (as_text[0] != as_text[5]).any()
