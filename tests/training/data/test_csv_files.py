"""CSV files: exact lines in every complaint, text kept as text, headers known or absent."""

import gzip
import re
from pathlib import Path

import pytest

from amiss_export.bundle import Column, TableInput
from amiss_export.errors import BadInput
from amiss_training.data import kdd99
from amiss_training.data.csv_files import open_csv

KNOWN = TableInput(
    columns=(Column(name="a", kind="number", dtype="float64"),),
    source_columns=("a", "label", "b"),
    label_column="label",
)


def write(tmp_path: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(path: Path, known: TableInput | None = None) -> str:
    with pytest.raises(BadInput) as refusal:
        open_csv(path, known).read()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_cells_stay_text(tmp_path: Path) -> None:
    """Zero-padded codes, empty cells, commas and newlines in quotes come through as they stand."""
    path = write(tmp_path, '\ufeffcode, note\n007,"a, b"\n\n,"two\nlines"\n')
    table = open_csv(path, None).read()
    assert table.to_pydict() == {"code": ["007", ""], "note": ["a, b", "two\nlines"]}


def test_gzip_is_read_whatever_the_name(tmp_path: Path) -> None:
    """A gzipped file without .gz in its name reads the same."""
    path = write(tmp_path, gzip.compress(b"a\n1\n"), "t.data")
    assert open_csv(path, None).read().to_pydict() == {"a": ["1"]}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b\n1,2\n1,2,3\n", "line 3: expected 2 fields as in line 1, got 3"),
        ('a,b\n1,"x\ny"\n\n1\n', "line 5: expected 2 fields as in line 1, got 1"),
    ],
)
def test_ragged_line_is_named_as_an_editor_counts(tmp_path: Path, text: str, line: str) -> None:
    """The line number counts blank lines and lines inside quotes, as an editor does."""
    path = write(tmp_path, text)
    assert complaint(path) == f"{path}: {line}"


def test_ragged_line_far_into_a_gzip_is_named(tmp_path: Path) -> None:
    """The line is exact beyond the first block that is read."""
    path = write(tmp_path, gzip.compress(b"a,b\n" + b"1,2\n" * 50_000 + b"1\n"), "t.csv.gz")
    assert "line 50002: expected 2 fields" in complaint(path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"\n\n", "the file is empty"),
        (b"a,b\n", "expected at least one row, got 0"),
        (b"a,b", "expected at least one row, got 0"),
        (b"a,b,a\n1,2,3\n", "line 1: column name(s) 'a' stand there more than once"),
        (b"1.5,2\n3,4\n", "line 1: expected the names of the columns, got numbers"),
        (b"a\n\xe9\n", "UTF-8"),
        (gzip.compress(bytes(range(97, 120)) * 99_999)[:-9], "cut off"),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 2**20)[:-9], "cut off"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, contents: bytes, message: str) -> None:
    """Each sort of broken file gives one line with the file and what is wrong."""
    path = write(tmp_path, contents)
    assert re.search(re.escape(message), complaint(path))
    assert str(path) in complaint(path)


def test_rows_are_located_by_line(tmp_path: Path) -> None:
    """Row 0 below a header is line 2; without one it is line 1."""
    assert open_csv(write(tmp_path, "a\n1\n\n2\n"), None).where(1).endswith("line 4")
    assert open_csv(write(tmp_path, "1,2,3\n"), KNOWN).where(0).endswith("line 1")


def test_file_without_header_is_read_by_position(tmp_path: Path) -> None:
    """Fields fall on the training file's columns, with its label or without."""
    with_label, without = write(tmp_path, "1,x,3\n"), write(tmp_path, "1,3\n", "u.csv")
    assert open_csv(with_label, KNOWN).read().to_pydict() == {
        "a": ["1"],
        "label": ["x"],
        "b": ["3"],
    }
    assert open_csv(without, KNOWN).read().to_pydict() == {"a": ["1"], "b": ["3"]}


def test_header_in_another_order_is_read_by_name(tmp_path: Path) -> None:
    """When a known name stands in the first line it is a header, whatever the count."""
    source = open_csv(write(tmp_path, "b,label,a\n1,2,3\n"), KNOWN)
    assert source.read(["a"]).to_pydict() == {"a": ["3"]}


def test_batches_hold_what_was_asked(tmp_path: Path) -> None:
    """Rows arrive in order, in batches of the asked size, the last one shorter."""
    path = write(tmp_path, "a\n" + "".join(f"{i}\n" for i in range(10)))
    sizes = [table["a"].to_pylist() for table in open_csv(path, None).batches(["a"], 4)]
    assert [len(s) for s in sizes] == [4, 4, 2]
    assert [cell for batch in sizes for cell in batch] == [str(i) for i in range(10)]


def test_raw_kdd_is_recognised(tmp_path: Path) -> None:
    """42 fields with a dot at the end get KDD99's names and a label without the dot."""
    line = ",".join(["0"] * 41 + ["smurf."])
    source = open_csv(write(tmp_path, f"{line}\n{line}\n"), None)
    assert source.columns == kdd99.COLUMNS
    assert source.label_column == "label"
    assert source.read(["label"])["label"].to_pylist() == ["smurf", "smurf"]
