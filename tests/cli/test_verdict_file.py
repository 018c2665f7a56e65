"""A file of verdicts: its three formats, that it appears whole, and how it is gone on with."""

import csv
import fcntl
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from amiss_cli.verdict_file import SUFFIXES, Totals, check_output, open_verdict_file
from amiss_cli.verdict_source import Answer
from amiss_export.errors import BadInput

OWNER = {"detector": "table@1", "threshold": 0.1, "input": "abc"}
AWKWARD = ["plain.png", "a,b.png", 'quote".png', "line\nbreak.png", "ümlaut.png", "NaN"]


def answer(n: int, start: int = 0) -> Answer:
    """Verdicts whose float32 numbers have no short decimal text."""
    score = ((np.arange(n) + start) / np.float32(3)).astype(np.float32)
    return Answer(score, score / np.float32(7), np.exp(-score * 30), score > 1, 1, 2)


def read(path: Path) -> pd.DataFrame:
    """The file as a table."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".jsonl":
        return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    return pd.read_csv(path, keep_default_na=False)


def write(output: Path, *, rows: int = 5, **options: Any) -> None:
    """A whole file of one chunk."""
    with open_verdict_file(
        output, **{"key": "row", "belongs_to": OWNER, "resume": False, **options}
    ) as file:
        file.append(range(rows), answer(rows))
        file.finish()


def interrupt(output: Path, *, chunks: int = 2) -> None:
    """A run that ends after `chunks` chunks of three rows and half a line."""
    with (
        suppress(KeyboardInterrupt),
        open_verdict_file(output, key="row", belongs_to=OWNER, resume=False) as file,
    ):
        for i in range(chunks):
            file.append(range(3 * i, 3 * i + 3), answer(3, start=3 * i))
        raise KeyboardInterrupt
    with output.with_name(output.name + ".part").open("a") as part:
        part.write("6,0.12")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_read_back_exactly(tmp_path: Path, suffix: str) -> None:
    """Every format gives back the same float32 values and flags, and leaves no other file."""
    output = tmp_path / f"out{suffix}"
    write(output, rows=50)
    found, expected = read(output), answer(50)
    assert list(found) == ["row", "score", "normalized_score", "p_value", "is_anomaly"]
    assert found["row"].tolist() == list(range(50))
    for name in ("score", "normalized_score", "p_value"):
        assert np.array_equal(found[name].to_numpy(np.float32), getattr(expected, name))
    assert found["is_anomaly"].tolist() == expected.is_anomaly.tolist()
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_awkward_paths_survive(tmp_path: Path, suffix: str) -> None:
    """Commas, quotes, line breaks and umlauts in a path come back as they were."""
    output = tmp_path / f"out{suffix}"
    with open_verdict_file(output, key="path", belongs_to=OWNER, resume=False) as file:
        file.append(AWKWARD, answer(len(AWKWARD)))
        file.finish()
    assert read(output)["path"].tolist() == AWKWARD


def test_csv_is_what_the_csv_module_reads(tmp_path: Path) -> None:
    """A plain CSV reader finds the columns of DESIGN, true and false in lower case."""
    write(tmp_path / "out.csv", rows=4)
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["is_anomaly"] for row in rows] == ["false", "false", "false", "false"]
    assert rows[1]["score"] == "0.33333334"


def test_the_file_appears_only_whole(tmp_path: Path) -> None:
    """Until finish the old file stands as it was; a run that fails leaves it alone."""
    output = tmp_path / "out.csv"
    output.write_text("old")
    interrupt(output)
    assert output.read_text() == "old"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_resume_drops_the_torn_line_and_goes_on(tmp_path: Path, suffix: str) -> None:
    """A resumed run keeps whole chunks, drops half a line, and ends in the same file."""
    output, whole = tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    interrupt(output)
    with open_verdict_file(output, key="row", belongs_to=OWNER, resume=True) as file:
        assert file.totals == Totals(rows=6, flagged=2, unseen_categories=2, missing_values=4)
        file.append(range(6, 9), answer(3, start=6))
        file.finish()
    write(whole, rows=9)
    assert read(output).equals(read(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([output.name, whole.name])


def test_resume_of_nothing_is_a_beginning(tmp_path: Path) -> None:
    """With --resume and no part file, or one without a whole chunk, rows start at 0."""
    output = tmp_path / "out.csv"
    interrupt(output, chunks=0)
    write(output, resume=True)
    assert len(read(output)) == 5


def test_without_resume_the_part_file_is_begun_anew(tmp_path: Path) -> None:
    """What an earlier run left is not mixed into a new one."""
    output = tmp_path / "out.csv"
    interrupt(output)
    write(output)
    assert len(read(output)) == 5


@pytest.mark.parametrize("what", ["detector", "threshold", "input"])
def test_resume_refuses_what_belongs_to_another_run(tmp_path: Path, what: str) -> None:
    """Another detector, threshold or input is refused by name, and the part file is kept."""
    output = tmp_path / "out.csv"
    interrupt(output)
    before = (tmp_path / "out.csv.part").read_bytes()
    with pytest.raises(BadInput, match=f"begun with {what} .* asked to go on with 'other'"):
        write(output, resume=True, belongs_to={**OWNER, what: "other"})
    assert (tmp_path / "out.csv.part").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"belongs_to": {}}'])
def test_a_damaged_sidecar_is_named(tmp_path: Path, text: str) -> None:
    """A sidecar that cannot be read is an error with its name, not a wrong file."""
    output = tmp_path / "out.csv"
    interrupt(output)
    (tmp_path / "out.csv.part.json").write_text(text)
    with pytest.raises(BadInput, match=r"out\.csv\.part\.json: cannot be read"):
        write(output, resume=True)


def test_a_part_file_that_lost_rows_is_refused(tmp_path: Path) -> None:
    """A part file shorter than its sidecar says is not gone on with."""
    output = tmp_path / "out.csv"
    interrupt(output)
    (tmp_path / "out.csv.part").write_text("row")
    with pytest.raises(BadInput, match="shorter"):
        write(output, resume=True)


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    """While one process holds the part file a second is refused and changes nothing."""
    output = tmp_path / "out.csv"
    with (tmp_path / "out.csv.part").open("w") as other:
        other.write("theirs")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="another amiss score"):
            write(output)
    assert (tmp_path / "out.csv.part").read_text() == "theirs"


@pytest.mark.parametrize("name", ["out.txt", "out", "no such folder/out.csv"])
def test_unusable_outputs_are_refused(tmp_path: Path, name: str) -> None:
    """An unknown ending or a missing folder is refused before anything is scored."""
    with pytest.raises(BadInput, match="--output"):
        check_output(tmp_path / name)
