"""Tables: one reading for every format, streamed for scoring."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from amiss_export.bundle import Column, TableInput
from amiss_export.decode import encode_columns
from amiss_export.errors import BadInput
from amiss_training.data.columns import infer_table
from amiss_training.data.tables import iter_table, open_table

CSV = "a,b,y\n1,x,0\n2,,1\n,y,0\n4,x,0\n"


def spec_of(path: Path, label: str | None = "y") -> TableInput:
    table = open_table(path).read()
    return infer_table(table, rows=np.arange(len(table)), label_column=label)


def test_csv_and_parquet_give_the_same_chunks(tmp_path: Path) -> None:
    """The same table as CSV and Parquet encodes to the same rows, chunk by chunk."""
    (tmp_path / "t.csv").write_text(CSV)
    table = pa.table({"a": [1, 2, None, 4], "b": ["x", None, "y", "x"], "y": [0, 1, 0, 0]})
    pq.write_table(table, tmp_path / "t.parquet")
    spec = spec_of(tmp_path / "t.csv")
    chunks = {
        name: [encode_columns(c, spec).rows for c in iter_table(tmp_path / name, spec, 3)]
        for name in ("t.csv", "t.parquet")
    }
    assert [len(chunk) for chunk in chunks["t.csv"]] == [3, 1]
    expected = np.array([[1, 2], [2, 1], [np.nan, 3], [4, 2]], dtype=np.float32)
    for found in chunks.values():
        np.testing.assert_array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("name", ["t.npz", "t.mat"])
def test_arrays_name_their_columns(tmp_path: Path, name: str) -> None:
    """NPZ and .mat columns are f0, f1, ...; y is the label."""
    x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1])
    if name == "t.npz":
        np.savez(tmp_path / name, X=x, y=y)
    else:
        savemat(tmp_path / name, {"X": x, "y": y})
    source = open_table(tmp_path / name)
    assert (source.columns, source.label_column) == (("f0", "f1", "y"), "y")
    (chunk,) = iter_table(tmp_path / name, spec_of(tmp_path / name), 10)
    np.testing.assert_array_equal(chunk["f1"], [2, 4])


def test_arrays_fall_on_the_detectors_columns_by_position(tmp_path: Path) -> None:
    """An NPZ of as many columns as the training CSV had features is read in their order."""
    spec = TableInput(
        columns=(Column(name="b", kind="number", dtype="float64"),),
        source_columns=("a", "b", "label"),
        label_column="label",
    )
    np.savez(tmp_path / "t.npz", X=np.array([[1.0, 2.0]]))
    (chunk,) = iter_table(tmp_path / "t.npz", spec, 10)
    assert chunk["b"].tolist() == [2.0]


def test_numbers_are_floats_and_categories_text(tmp_path: Path) -> None:
    """Chunks are what the client sends: float64 with NaN, and text with '' for missing."""
    (tmp_path / "t.csv").write_text(CSV)
    (chunk,) = iter_table(tmp_path / "t.csv", spec_of(tmp_path / "t.csv"), 10)
    assert chunk["a"].dtype == np.float64
    np.testing.assert_array_equal(chunk["a"], [1, 2, np.nan, 4])
    assert chunk["b"].tolist() == ["x", "", "y", "x"]


def test_bad_cell_in_a_later_chunk_has_its_line(tmp_path: Path) -> None:
    """The line named is the file's, not the chunk's."""
    (tmp_path / "t.csv").write_text(CSV)
    spec = spec_of(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(CSV + "oops,x,0\n")
    with pytest.raises(BadInput, match=r"t\.csv: line 6, column 'a'.*got 'oops'"):
        list(iter_table(tmp_path / "t.csv", spec, 2))


def test_absent_column_is_named(tmp_path: Path) -> None:
    """A file without a column the detector reads is refused before any row."""
    (tmp_path / "t.csv").write_text(CSV)
    spec = spec_of(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_text("a,c,d,e\n1,2,3,4\n")
    with pytest.raises(BadInput, match=r"u\.csv: no column 'b'; there: 'a', 'c'"):
        list(iter_table(tmp_path / "u.csv", spec, 2))


def test_not_a_table(tmp_path: Path) -> None:
    """Images and absent files are refused as tables."""
    np.savez(tmp_path / "i.npz", X=np.zeros((2, 3, 3)))
    with pytest.raises(BadInput, match=r"expected a table \(n, d\), got an array of shape"):
        open_table(tmp_path / "i.npz")
    with pytest.raises(BadInput, match="no such file"):
        open_table(tmp_path / "absent.csv")


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    """A folder where a table was expected is named as what it is."""
    with pytest.raises(BadInput, match=r"expected a table .*, got a folder"):
        open_table(tmp_path)
