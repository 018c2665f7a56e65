"""From the tables people have to the columns that travel: float64 numbers, or texts."""

import math
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from amiss_client.errors import InvalidInput

Cells = NDArray[np.float64] | list[str]


@runtime_checkable
class Frame(Protocol):
    """A pandas or polars DataFrame, or whatever else names its columns and gives them by name."""

    @property
    def columns(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


Table = Mapping[str, Any] | Sequence[Mapping[str, Any]] | Frame


def columns_of(table: Table) -> dict[str, Cells]:
    """The table's columns by name, all of one length >= 1.

    table: column -> values, a list of records, or a data frame. None, NaN and pandas' NA are
    missing: NaN among numbers, "" among texts. A column with any text in it travels as texts.
    """
    cells = {str(name): to_cells(str(name), values) for name, values in _columns(table)}
    if not cells:
        raise InvalidInput("expected a table with at least one column, got none")
    lengths = {len(values) for values in cells.values()}
    if len(lengths) > 1:
        raise InvalidInput(f"columns must be of equal length, got lengths {sorted(lengths)}")
    if 0 in lengths:
        raise InvalidInput("expected at least one row, got 0")
    return cells


def to_cells(name: str, values: Any) -> Cells:
    """One column as float64 numbers when every cell is a number or missing, else as texts.

    True and False are 1 and 0, as they are when a table is read for training.
    """
    array = _array(name, values)
    if array.ndim != 1:
        raise InvalidInput(
            f"column {name!r}: expected one value a row, got an array of shape {array.shape}"
        )
    if array.dtype.kind in "fiub":
        return array.astype("<f8")
    if array.dtype.kind in "mM":  # moments are texts: as nanoseconds they would pass for numbers
        array = array.astype(f"{array.dtype.kind}8[us]")
    cells: list[Any] = array.tolist()
    if array.dtype.kind in "UT":
        return cells
    if all(_is_number(cell) or is_missing(cell) for cell in cells):
        numbers = (math.nan if is_missing(cell) else _as_float(cell) for cell in cells)
        return np.fromiter(numbers, dtype="<f8", count=len(cells))
    return [to_text(name, cell) for cell in cells]


def to_text(name: str, value: Any) -> str:
    """A category as the manifest writes it: 1 and 1.0 alike, true and false, "" when missing."""
    if isinstance(value, str):
        return value
    if is_missing(value):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    if isinstance(value, (bytes, bytearray, list, tuple, dict, set)):
        raise InvalidInput(
            f"column {name!r}: expected a number or a text in each cell, got {value!r:.80}"
        )
    return str(value)


def is_missing(value: Any) -> bool:
    """None, NaN, NaT and pandas' NA, which is known by its name: pandas is not ours to import."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def _columns(table: Table) -> list[tuple[Any, Any]]:
    if isinstance(table, Mapping):
        return list(table.items())
    if isinstance(table, Frame):
        return [(name, table[name]) for name in table.columns]
    if isinstance(table, (str, bytes)) or not isinstance(table, Sequence):
        raise InvalidInput(
            "expected a mapping of columns, a list of records or a data frame, "
            f"got {type(table).__name__}"
        )
    return _columns_of_records(table)


def _columns_of_records(records: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    for i, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise InvalidInput(f"record {i}: expected column: value pairs, got {record!r:.80}")
    names = dict.fromkeys(name for record in records for name in record)
    return [(name, [record.get(name) for record in records]) for name in names]


def _array(name: str, values: Any) -> NDArray[Any]:
    if isinstance(values, np.ma.MaskedArray):
        return np.array(values.tolist(), dtype=object)  # its own: None where it is masked
    if hasattr(values, "__array__"):
        return np.asarray(values)
    if isinstance(values, (str, bytes, Set, Mapping)) or not hasattr(values, "__len__"):
        raise InvalidInput(
            f"column {name!r}: expected a list or an array with one value a row, got "
            f"{values!r:.80}; a single record goes in a list: [record]"
        )
    if set(map(type, values)) in ({int}, {float}, {int, float}):
        with suppress(OverflowError):  # an integer of hundreds of digits: see _as_float
            return np.array(values, dtype=np.float64)
    # object first: left to guess, numpy turns None and NaN among texts into 'None' and 'nan'
    return np.fromiter(values, dtype=object, count=len(values))


def _as_float(value: Any) -> float:
    """The number, infinite when no float holds it: the service refuses it by column and row."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number, np.bool_, Decimal))
