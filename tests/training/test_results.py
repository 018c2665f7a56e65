"""The file of results: whole rows or none, and nothing read that we did not write."""

import csv
from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_training.processes import side_by_side
from amiss_training.results import COLUMNS, append_results, read_results
from result_rows import append_fifty, result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet, in a folder that is not there yet."""
    return tmp_path / "docs" / "results.csv"


def test_rows_come_back_as_they_were(path: Path) -> None:
    """What was appended, twice, reads back equal and in order, undefined figures included."""
    rows = [result(), result("knn", None), result(class_="a, b", data="cömma")]
    append_results(path, rows[:1])
    append_results(path, rows[1:])
    assert read_results(path) == rows


def test_the_file_is_a_table_for_other_tools(path: Path) -> None:
    """Python's csv module finds one header and one line for each row, `class` spelt as such."""
    append_results(path, [result(), result(seed=1)])
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["seed"] for line in lines] == ["0", "1"]
    assert lines[0]["class"] == "0"
    assert tuple(lines[0]) == COLUMNS


def test_no_file_and_an_empty_file_hold_no_rows(path: Path) -> None:
    """Before the first append there is nothing, and an empty file gets its header then."""
    assert read_results(path) == []
    path.parent.mkdir()
    path.touch()
    assert read_results(path) == []
    append_results(path, [result()])
    assert read_results(path) == [result()]


@pytest.mark.parametrize("kept", [1, 40])
def test_a_torn_row_is_neither_read_nor_kept(path: Path, kept: int) -> None:
    """Half a row that a killed writer left is ignored, and gone after the next append."""
    append_results(path, [result()])
    line = path.read_bytes().splitlines()[1]
    with path.open("ab") as file:
        file.write(line[:kept])
    assert read_results(path) == [result()]
    append_results(path, [result(seed=1)])
    assert read_results(path) == [result(), result(seed=1)]


def test_a_torn_header_is_written_again(path: Path) -> None:
    """A file whose very first line is cut off counts as empty."""
    path.parent.mkdir()
    path.write_text("recipe,da")
    assert read_results(path) == []
    append_results(path, [result()])
    assert read_results(path) == [result()]


def test_a_file_with_other_columns_is_refused(path: Path) -> None:
    """A CSV file of another kind is named, not mended."""
    path.parent.mkdir()
    path.write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="expected the columns recipe,"):
        read_results(path)


@pytest.mark.parametrize("spoilt", ["0.9,0.9", "high"])
def test_a_line_that_cannot_be_read_is_named(path: Path, spoilt: str) -> None:
    """The message says which line holds a cell too many, or a word for a number."""
    append_results(path, [result(), result(auroc=0.123456)])
    path.write_text(path.read_text().replace("0.123456", spoilt))
    with pytest.raises(BadInput, match="line 3"):
        read_results(path)


def test_writers_at_the_same_time_lose_no_row(path: Path) -> None:
    """Two processes that append 50 rows each leave 100 whole rows."""
    list(side_by_side(append_fifty, [(path, 0), (path, 1)], at_once=2))
    assert sorted((r.seed, r.class_) for r in read_results(path)) == sorted(
        (seed, str(i)) for seed in range(2) for i in range(50)
    )
