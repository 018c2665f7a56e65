"""Parquet files, streamed: numbers, text, truth values; dates and such become text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from amiss_export.errors import BadInput
from amiss_training.data.files import reading, sha256_of
from amiss_training.data.sources import TableSource, check_unique, regroup


def open_parquet(path: Path) -> TableSource:
    """The Parquet file as a source."""
    with _parquet(path) as file:
        columns = check_unique(str(path), tuple(file.schema_arrow.names))
        count = file.metadata.num_rows
    if count == 0:
        raise BadInput(f"{path}: expected at least one row, got 0")

    def batches(chosen: Sequence[str], rows: int) -> Iterator[pa.Table]:
        with _parquet(path) as file:
            found = file.iter_batches(batch_size=rows, columns=list(chosen))
            tables = (pa.Table.from_batches([b]).select(list(chosen)) for b in found)
            yield from regroup((_plain(path, table) for table in tables), rows)

    return TableSource(
        str(path),
        columns,
        None,
        batches,
        where=lambda row: f"{path}: row {row}",
        data_hash=lambda: sha256_of([path]),
    )


@contextmanager
def _parquet(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    try:
        with reading(path), pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path}: cannot be read as Parquet: {reason}") from error


def _plain(path: Path, table: pa.Table) -> pa.Table:
    """The table with numbers, truth values and text only: dates and such become text."""
    for i, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_decimal(kind) or pa.types.is_null(kind):
            kind = pa.float64()
        elif (
            pa.types.is_temporal(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
        ):
            kind = pa.string()
        if not (_is_plain_number(kind) or pa.types.is_string(kind)):
            raise BadInput(
                f"{path}: column {field.name!r} holds {field.type}; "
                "expected numbers, text, truth values or dates"
            )
        if kind != field.type:
            table = table.set_column(i, field.name, pc.cast(table.column(i), kind))
    return table


def _is_plain_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )
