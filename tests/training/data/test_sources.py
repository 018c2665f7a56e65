"""Sources: names checked, rows regrouped, positions matched."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amiss_export.bundle import Column, TableInput
from amiss_export.errors import BadInput
from amiss_training.data.sources import (
    check_unique,
    is_headless,
    names_by_position,
    regroup,
    require,
    table_source,
)

KNOWN = TableInput(
    columns=(Column(name="a", kind="number", dtype="float64"),),
    source_columns=("a", "label"),
    label_column="label",
)


@given(sizes=st.lists(st.integers(0, 9), max_size=8), rows=st.integers(1, 7))
def test_regroup_keeps_rows_and_order(sizes: list[int], rows: int) -> None:
    """Whatever the batches, the same rows come out in full groups but for the last."""
    values = list(range(sum(sizes)))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    tables = [
        pa.table({"a": pa.array(values[end - size : end], pa.int64())})
        for size, end in zip(sizes, ends, strict=True)
    ]
    groups = [table["a"].to_pylist() for table in regroup(tables, rows)]
    assert [value for group in groups for value in group] == values
    assert all(len(group) == rows for group in groups[:-1])
    assert all(groups)


def test_absent_columns_are_named_beside_those_there() -> None:
    """The message has both the column that was asked for and the ones there are."""
    with pytest.raises(BadInput, match=r"f\.csv: no column 'z'; there: 'a', 'b'"):
        require("f.csv", ["a", "z"], ["a", "b"])


def test_repeated_names_are_refused() -> None:
    """Two columns of one name cannot be told apart."""
    with pytest.raises(BadInput, match="'a' stand there more than once"):
        check_unique("f.csv", ("a", "b", "a"))


def test_headless_only_when_nothing_matches_and_the_count_fits() -> None:
    """One known name makes a header; so does a count that fits neither way."""
    assert is_headless(["1", "x"], KNOWN)
    assert is_headless(["1"], KNOWN)
    assert not is_headless(["a", "x"], KNOWN)
    assert not is_headless(["1", "2", "3"], KNOWN)
    assert names_by_position(KNOWN, 1) == ("a",)


def test_table_in_memory_reads_like_a_file() -> None:
    """A table in memory gives its columns, its rows and a place for each."""
    source = table_source("mem", pa.table({"a": [1, 2]}), label_column=None, data_hash=str)
    assert source.columns == ("a",)
    assert source.read(["a"])["a"].to_pylist() == [1, 2]
    assert source.where(1) == "mem: row 1"
