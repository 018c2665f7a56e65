"""The figures of many runs: a CSV file that only grows, one row for each method on each cell.

A cell is one data set, one class and one seed. Rows are whole or absent, whatever dies meanwhile.
"""

import csv
import fcntl
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from amiss_export.errors import BadInput

Over = Literal["normal_class", "anomaly_class", "none"]
Kind = Literal["ours", "readout", "control", "peer"]
Key = tuple[str, str, str, int, str]


@dataclass(frozen=True)
class Result:
    """What one method reached on one cell; None where a figure is not defined.

    over: which option the sweep varied, class_: its value. kind: ours; readout, another read-out of
    the same model; control, the network before it learned; peer. precision to false_alarm_share
    are at the calibrated threshold, which peers do not have; oracle_f1 flags the share of the test
    rows that a paper protocol names. n_train: rows fitted on; n_seen: also those that stopped the
    training or set the threshold, which is what peers are fitted on. split_hash: of all four roles.
    seconds: to fit, read off and score.
    """

    recipe: str
    data: str
    over: Over
    class_: str
    seed: int
    method: str
    kind: Kind
    readout: str
    auroc: float | None
    auprc: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    flagged_share: float | None
    false_alarm_share: float | None
    fpr_at_95_tpr: float | None
    oracle_f1: float | None
    n_train: int
    n_seen: int
    n_test: int
    prevalence: float
    split_hash: str
    seconds: float | None
    config_hash: str
    commit: str

    @property
    def key(self) -> Key:
        """What no two rows share: settings, data, class, seed and method."""
        return self.config_hash, self.data, self.class_, self.seed, self.method


COLUMNS = tuple(field.name.rstrip("_") for field in fields(Result))
_COUNTS = {"seed", "n_train", "n_seen", "n_test"}
_FIGURES = {
    *("auroc", "auprc", "precision", "recall", "f1", "flagged_share", "false_alarm_share"),
    *("fpr_at_95_tpr", "oracle_f1", "prevalence", "seconds"),
}


def read_results(path: Path) -> list[Result]:
    """Every whole row of the file; none when there is no file.

    Raises BadInput for a file with other columns, and naming the line that cannot be read.
    """
    if not path.exists():
        return []
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        contents = file.read()
    whole = contents[: contents.rfind(b"\n") + 1]
    lines = csv.reader(io.StringIO(whole.decode(), newline=""))
    header = next(lines, None)
    if header is None:
        return []
    if tuple(header) != COLUMNS:
        raise BadInput(
            f"{path}: expected the columns {','.join(COLUMNS)}, got {','.join(header)}; "
            "move the file away or name another one with --results"
        )
    return [_parsed(path, lines.line_num, cells) for cells in lines]


def append_results(path: Path, results: Sequence[Result]) -> None:
    """Nothing; puts the rows at the end of the file, in one write under a lock.

    What a killed writer left of a row is cut off first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if _cut_torn_row(file) == 0:
            writer.writerow(COLUMNS)
        writer.writerows([_text(getattr(r, f.name)) for f in fields(r)] for r in results)
        file.write(text.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_row(file: BinaryIO) -> int:
    """Bytes that are left when everything behind the last line break is gone."""
    file.seek(0)
    length = file.read().rfind(b"\n") + 1
    file.truncate(length)
    return length


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _parsed(path: Path, line: int, cells: list[str]) -> Result:
    try:
        named = dict(zip(COLUMNS, cells, strict=True))
        values = {name: _value(name, text) for name, text in named.items()}
    except ValueError as error:
        raise BadInput(f"{path}: line {line}: {error}; mend or delete the line") from error
    return Result(**cast("dict[str, Any]", {"class_": values.pop("class"), **values}))


def _value(name: str, text: str) -> str | float | None:
    if name in _COUNTS:
        return int(text)
    if name in _FIGURES:
        return float(text) if text else None
    return text
