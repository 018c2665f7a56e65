"""What each column is: inferred from the training rows, shown to people, applied to cells."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from amiss_export.bundle import Column, DroppedColumn, TableInput
from amiss_export.errors import BadInput
from amiss_training.data import cells

MAX_CATEGORIES = 256
_ROWS_TO_TELL = 20
_MOST_CODES = 20  # numbers with a few words among them: codes up to here, typing errors beyond
_MOSTLY = 0.9
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Locate = Callable[[int], str]
Missing = Literal["impute", "refuse"]


def infer_table(
    table: pa.Table,
    *,
    rows: NDArray[np.int64],
    label_column: str | None = None,
    category_columns: Sequence[str] = (),
    missing: Missing = "impute",
    where: Locate = "row {}".format,
    name: str = "the table",
) -> TableInput:
    """What the detector reads of the table, told by the given (training) rows alone.

    A column of numbers, or of text that is all numbers, is a number; other text is a category.
    Dropped, with the reason: constants, columns without a name, and text like an identifier, with
    more than MAX_CATEGORIES distinct values or another one in every row. Raises BadInput when
    nothing is left, and for various text that is nearly all numbers, naming the cell that is not.
    """
    train = table.take(pa.array(rows))
    found = [
        _infer(
            column,
            train[column],
            as_category=column in category_columns,
            missing=missing,
            where=lambda i: where(int(rows[i])),
        )
        for column in table.column_names
        if column != label_column
    ]
    columns = tuple(column for column in found if isinstance(column, Column))
    dropped = tuple(column for column in found if isinstance(column, DroppedColumn))
    if not columns:
        reasons = "; ".join(f"{column.name!r} ({column.reason})" for column in dropped[:8])
        raise BadInput(
            f"{name}: no column is left to learn from: {reasons or 'there is only the label'}"
        )
    return TableInput(
        columns=columns,
        dropped=dropped,
        source_columns=tuple(table.column_names),
        label_column=label_column,
    )


def _infer(
    name: str, column: pa.ChunkedArray, *, as_category: bool, missing: Missing, where: Locate
) -> Column | DroppedColumn:
    if is_unnamed(name):
        return DroppedColumn(name=name, reason="no name in the header: a row index?")
    if not as_category:
        floats, strange = cells.numbers(column)
        if not strange.any():
            return _infer_number(name, column, floats, missing=missing)
    words = cells.texts(column)
    distinct = sorted(set(words.tolist()))
    if len(distinct) == 1:
        return DroppedColumn(name=name, reason=_constant(distinct[0]))
    if not as_category and len(distinct) > _MOST_CODES and np.mean(strange) <= 1 - _MOSTLY:
        row = int(np.flatnonzero(strange)[0])
        raise BadInput(
            f"{where(row)}, column {name!r}: expected a number as in most rows, got "
            f"{words[row]!r}; mend the cell, or name the column in category_columns"
        )
    if not as_category and _is_identifier(len(distinct), len(words)):
        return DroppedColumn(
            name=name,
            reason=f"text with {len(distinct)} distinct values in {len(words)} training rows: "
            "an identifier?",
        )
    return Column(
        name=name,
        kind="category",
        dtype="str" if cells.is_text(column) else str(column.type),
        categories=tuple(word for word in distinct if word),
        missing=missing,
    )


def _infer_number(
    name: str, column: pa.ChunkedArray, floats: NDArray[np.float64], *, missing: Missing
) -> Column | DroppedColumn:
    empty = np.isnan(floats)
    if empty.all():
        return DroppedColumn(name=name, reason="no value in any training row")
    with np.errstate(over="ignore"):
        seen = floats[~empty].astype(np.float32)  # as the graph sees them
    if not empty.any() and (seen == seen[0]).all():
        return DroppedColumn(name=name, reason=_constant(f"{floats[0]:g}"))
    return Column(name=name, kind="number", dtype=cells.dtype_of(column, floats), missing=missing)


def _is_identifier(distinct: int, rows: int) -> bool:
    """Whether text is too various to tell normal from not: new rows will bring new values."""
    return distinct > MAX_CATEGORIES or distinct == rows >= _ROWS_TO_TELL


def _constant(value: str) -> str:
    return f"constant: {value!r} in every training row" if value else "no value in any training row"


def describe(spec: TableInput) -> list[str]:
    """One line per column of the file, in order: what it is taken for, or why it is dropped."""
    lines = {column.name: f"{column.kind:9} {_details(column)}" for column in spec.columns}
    lines |= {column.name: f"dropped   {column.reason}" for column in spec.dropped}
    if spec.label_column is not None:
        lines[spec.label_column] = "label"
    width = max(map(len, lines))
    return [f"{name:{width}}  {lines[name]}" for name in spec.source_columns if name in lines]


def _details(column: Column) -> str:
    if column.kind == "number":
        return column.dtype
    return f"{len(column.categories)} values: {some(column.categories, most=5)}"


def columns_of(table: pa.Table, spec: TableInput, *, where: Locate) -> dict[str, NDArray[Any]]:
    """The cells of the columns the detector reads: numbers float64 (n,), categories text (n,).

    Raises BadInput naming place and column for text among numbers, for infinities, and for an
    empty cell where the column refuses one.
    """
    found: dict[str, NDArray[Any]] = {}
    for column in spec.columns:
        if column.kind == "number":
            found[column.name] = numbers_of(table[column.name], column.name, where=where)
            empty = np.isnan(found[column.name])
        else:
            found[column.name] = cells.texts(table[column.name])
            empty = found[column.name] == ""
        if column.missing == "refuse" and empty.any():
            row = int(np.flatnonzero(empty)[0])
            raise BadInput(
                f"{where(row)}, column {column.name!r}: expected a value, got none; fill it in, "
                "or train with missing=impute"
            )
    return found


def numbers_of(column: pa.ChunkedArray, name: str, *, where: Locate) -> NDArray[np.float64]:
    """The column as float64 (n,), NaN where missing; BadInput at what is no finite number."""
    floats, strange = cells.numbers(column)
    with np.errstate(invalid="ignore"):
        strange |= np.abs(floats) > _FLOAT32_MAX
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        raise BadInput(
            f"{where(row)}, column {name!r}: expected a finite number that float32 holds, "
            f"got {column[row].as_py()!r}"
        )
    return floats


def row_keys(
    table: pa.Table, *, category_columns: Sequence[str] = (), where: Locate
) -> NDArray[np.float32]:
    """Rows as numbers, (n, d) float32, equal where a detector could not tell them apart.

    Before any column is inferred: numbers as they are, text by its order of appearance; columns
    that look like identifiers are left out. For finding repeats before the rows are divided.
    """
    keys: list[NDArray[np.float32]] = []
    for name in table.column_names:
        if is_unnamed(name):
            continue
        column = table[name]
        if name not in category_columns and not cells.numbers(column)[1].any():
            keys.append(numbers_of(column, name, where=where).astype(np.float32))
            continue
        codes, distinct = _codes(cells.texts(column))
        if name in category_columns or not _is_identifier(distinct, len(table)):
            keys.append(codes)
    return np.stack(keys, axis=1) if keys else np.zeros((len(table), 1), dtype=np.float32)


def _codes(words: NDArray[np.object_]) -> tuple[NDArray[np.float32], int]:
    encoded = pa.array(words, type=pa.string()).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.float32), len(encoded.dictionary)


def is_unnamed(name: str) -> bool:
    """Whether the column is a row index: one that nobody named, or pandas in a Parquet file."""
    return not name or _PANDAS_INDEX.fullmatch(name) is not None


def some(names: Sequence[str], most: int = 8) -> str:
    """The names, quoted, the first few of many."""
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
