"""A table that can be read, whatever file it lies in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from amiss_export.bundle import TableInput
from amiss_export.errors import BadInput
from amiss_training.data.columns import Locate, some

_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class TableSource:
    """A table that can be read: its columns in file order, and its rows in batches.

    name: the file, for messages. label_column: the one the format itself names, as y of an NPZ.
    batches(names, rows) yields pyarrow tables of the named columns, `rows` rows each.
    where(i) says where row i (0-based) stands in the file, for messages. data_hash() is the
    sha256 of what was read.
    """

    name: str
    columns: tuple[str, ...]
    label_column: str | None
    batches: Callable[[Sequence[str], int], Iterator[pa.Table]]
    where: Locate
    data_hash: Callable[[], str]
    is_kdd99: bool = False

    def read(self, names: Sequence[str] | None = None) -> pa.Table:
        """All rows of the named columns, or of all columns, as one pyarrow table."""
        tables = list(self.batches(self.columns if names is None else names, _ROWS_AT_ONCE))
        if not tables:
            raise BadInput(f"{self.name}: expected at least one row, got 0")
        return pa.concat_tables(tables)


def table_source(
    name: str, table: pa.Table, *, label_column: str | None, data_hash: Callable[[], str]
) -> TableSource:
    """A table in memory as a source."""

    def batches(names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        chosen = table.select(list(names))
        return (chosen.slice(start, rows) for start in range(0, len(chosen), rows))

    return TableSource(
        name,
        tuple(table.column_names),
        label_column,
        batches,
        where=lambda row: f"{name}: row {row}",
        data_hash=data_hash,
    )


def require(path: Path | str, names: Iterable[str], there: Sequence[str]) -> None:
    """Nothing; raises BadInput naming the columns that are absent and those that are there."""
    absent = [name for name in names if name not in there]
    if absent:
        raise BadInput(f"{path}: no column {some(absent)}; there: {some(there, most=50)}")


def check_unique(place: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names themselves, when none stands there twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{place}: column name(s) {some(twice)} stand there more than once")
    return names


def is_headless(first: Sequence[str], known: TableInput) -> bool:
    """Whether none of the detector's names stands in the first line, but its fields may fit."""
    return not {column.name for column in known.columns} & set(first) and bool(
        names_by_position(known, len(first))
    )


def names_by_position(known: TableInput, fields: int) -> tuple[str, ...] | None:
    """Names for a file without any: those of the training file, with or without its label."""
    features = tuple(name for name in known.source_columns if name != known.label_column)
    return next((n for n in (known.source_columns, features) if n and len(n) == fields), None)


def regroup(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows each, the last one shorter."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += len(table)
        if count < rows:
            continue
        whole = pa.concat_tables(held)
        full = count - count % rows
        yield from (whole.slice(start, rows) for start in range(0, full, rows))
        held, count = [whole.slice(full)], count - full
    if count:
        yield pa.concat_tables(held)
