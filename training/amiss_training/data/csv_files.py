"""CSV files, plain or gzipped, streamed: every cell as text, every complaint with its line."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from amiss_export.bundle import TableInput
from amiss_export.errors import BadInput
from amiss_training.data import kdd99
from amiss_training.data.files import is_gzipped, open_plain, reading, sha256_of
from amiss_training.data.sources import (
    TableSource,
    check_unique,
    is_headless,
    names_by_position,
    regroup,
)

_BLOCK_BYTES = 8 << 20


def open_csv(path: Path, known: TableInput | None) -> TableSource:
    """The CSV file as a source. Without a header it is read as raw KDD99 or as the known table."""
    first, first_lines = _first_record(path)
    is_kdd99 = kdd99.looks_like(first)
    names = names_by_position(known, len(first)) if known and is_headless(first, known) else None
    if known is None and is_kdd99:
        names = kdd99.COLUMNS
    skip = 0 if names else first_lines
    columns = names or _check_header(path, first)

    def batches(chosen: Sequence[str], rows: int) -> Iterator[pa.Table]:
        with _csv_reader(path, columns, chosen, skip=skip) as reader:
            tables = regroup((pa.Table.from_batches([b]) for b in reader), rows)
            yield from map(kdd99.without_dots, tables) if is_kdd99 else tables

    return TableSource(
        str(path),
        columns,
        kdd99.LABEL if is_kdd99 else None,
        batches,
        where=lambda row: f"{path}: line {_line_of(path, row + (1 if skip else 0))}",
        data_hash=lambda: sha256_of([path]),
        is_kdd99=is_kdd99,
    )


def _first_record(path: Path) -> tuple[tuple[str, ...], int]:
    """Fields of the first line that is not empty, and how many lines lie up to its end."""
    with _records(path) as records:
        for line, fields in records:
            return tuple(field.strip() for field in fields), line
    raise BadInput(f"{path}: the file is empty")


@contextmanager
def _records(path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """(last line, fields) of each record: the slow, exact reading, for headers and messages."""
    with (
        open_plain(path) as stream,
        reading(path),
        io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
    ):
        rows = csv.reader(text)
        try:
            yield ((rows.line_num, fields) for fields in rows if fields)
        except csv.Error as error:
            raise BadInput(f"{path}: line {rows.line_num}: {error}") from error


def _line_of(path: Path, record: int) -> int:
    with _records(path) as records:
        return next((line for i, (line, _) in enumerate(records) if i == record), record + 1)


def _check_header(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    if all(_is_number(name) for name in names):
        raise BadInput(
            f"{path}: line 1: expected the names of the columns, got numbers; add a header line"
        )
    return check_unique(f"{path}: line 1", names)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def _csv_reader(
    path: Path, columns: Sequence[str], chosen: Sequence[str], *, skip: int
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Batches of the chosen columns, every cell as text. Blank lines are passed over."""
    compression = "gzip" if is_gzipped(path) else None
    try:
        with (
            reading(path),
            pa.input_stream(path, compression=compression) as stream,
            pyarrow.csv.open_csv(
                stream,
                read_options=pyarrow.csv.ReadOptions(
                    column_names=columns, skip_rows=skip, block_size=_BLOCK_BYTES
                ),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()), include_columns=list(chosen)
                ),
            ) as reader,
        ):
            yield reader
    except pa.ArrowInvalid as error:
        _explain(path, fields=len(columns), header_lines=skip)
        raise BadInput(f"{path}: cannot be read as CSV: {str(error).splitlines()[0]}") from error


def _explain(path: Path, *, fields: int, header_lines: int) -> None:
    """Raises BadInput naming the first ragged line, or that no rows follow; else returns."""
    line = 0
    with _records(path) as records:
        for line, found in records:
            if len(found) != fields:
                raise BadInput(
                    f"{path}: line {line}: expected {fields} fields as in line 1, got {len(found)}"
                )
    if line <= header_lines:
        raise BadInput(f"{path}: expected at least one row, got 0")
