"""Parquet files: plain types as they are, dates as text, nested columns refused."""

import datetime
import decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amiss_export.errors import BadInput
from amiss_training.data.parquet_files import open_parquet


def test_types_become_numbers_and_text(tmp_path: Path) -> None:
    """Integers, floats and truth values stay; decimals become floats, dates and categories text."""
    table = pa.table(
        {
            "i": pa.array([1, None], pa.int32()),
            "b": [True, False],
            "d": [decimal.Decimal("1.5"), None],
            "t": [datetime.date(2020, 1, 2), None],
            "c": pa.array(["x", "y"]).dictionary_encode(),
            "l": pa.array(["x", "y"], pa.large_string()),
            "n": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = open_parquet(tmp_path / "a.parquet").read()
    assert [str(t) for t in found.schema.types] == [
        *("int32", "bool", "double", "string", "string", "string", "double")
    ]
    assert found["t"].to_pylist() == ["2020-01-02", None]


def test_nested_column_is_named(tmp_path: Path) -> None:
    """A column of lists is refused by its name."""
    pq.write_table(pa.table({"a": [[1, 2]]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="column 'a' holds list"):
        open_parquet(tmp_path / "a.parquet").read()


def test_streams_in_batches(tmp_path: Path) -> None:
    """Batches have the asked size across row groups, and only the asked columns in that order."""
    pq.write_table(pa.table({"a": range(10), "b": range(10)}), tmp_path / "a", row_group_size=3)
    batches = list(open_parquet(tmp_path / "a").batches(["b", "a"], 4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert batches[0].column_names == ["b", "a"]


def test_broken_and_empty_files_are_named(tmp_path: Path) -> None:
    """A cut-off file and one without rows are refused."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadInput, match=r"a\.parquet: cannot be read as Parquet"):
        open_parquet(path)
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path)
    with pytest.raises(BadInput, match="at least one row"):
        open_parquet(path)
