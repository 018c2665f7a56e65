"""Cells as they stand in a file -> numbers or category texts, many at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from amiss_export.decode import category_text

MISSING_NUMBERS = ("", "na", "n/a", "nan", "null", "none", "?")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"


def is_text(cells: pa.ChunkedArray) -> bool:
    """Whether the cells are text, as everything from a CSV file is."""
    return bool(pa.types.is_string(cells.type))


def numbers(cells: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each cell as float64, (n,), NaN where it is missing or no number; and (n,) where it is none.

    Text: surrounding blanks are ignored; MISSING_NUMBERS, in any case, are missing; a column of
    nothing but true and false is 1 and 0.
    """
    if not is_text(cells):
        floats = _floats(pc.cast(cells, pa.float64(), safe=False))
        return floats, np.zeros(len(floats), dtype=bool)
    trimmed = pc.utf8_trim_whitespace(cells)
    try:
        floats = _floats(pc.cast(trimmed, pa.float64()))
        return floats, np.zeros(len(floats), dtype=bool)
    except pa.ArrowInvalid:  # some cell is empty or no number: the way below tells which
        trimmed = pc.fill_null(trimmed, "")
    missing = _missing(trimmed)
    truths = _truths(trimmed, missing)
    if truths is not None:
        return truths, np.zeros(len(truths), dtype=bool)
    readable = pc.and_(pc.match_substring_regex(trimmed, _NUMBER), pc.invert(missing))
    floats = _floats(pc.cast(pc.if_else(readable, trimmed, None), pa.float64()))
    return floats, _bools(pc.and_not(pc.invert(readable), missing))


def texts(cells: pa.ChunkedArray) -> NDArray[np.object_]:
    """Each cell as the text of its category, (n,) str; the empty text is a missing one."""
    encoded = cells.combine_chunks().dictionary_encode()
    words = [category_text(value) or "" for value in encoded.dictionary.to_pylist()]
    index = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    found: NDArray[np.object_] = np.array([*words, ""], dtype=object)[index]
    return found


def dtype_of(cells: pa.ChunkedArray, floats: NDArray[np.float64]) -> str:
    """Name of the type the numbers were read as; for text the narrowest that holds them."""
    if not is_text(cells):
        return str(np.dtype(cells.type.to_pandas_dtype()))
    trimmed = pc.fill_null(pc.utf8_trim_whitespace(cells), "")
    if _truths(trimmed, _missing(trimmed)) is not None:
        return "bool"
    present = floats[~np.isnan(floats)]
    whole = len(present) == len(floats) and bool((present == np.floor(present)).all())
    return "int64" if whole else "float64"


def _missing(trimmed: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(MISSING_NUMBERS))


def _truths(trimmed: pa.ChunkedArray, missing: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """1 for true, 0 for false, NaN for missing; None when any other text is among them."""
    lower = pc.utf8_lower(trimmed)
    true, false = _bools(pc.equal(lower, "true")), _bools(pc.equal(lower, "false"))
    empty = _bools(missing)
    if not (true | false | empty).all() or empty.all():
        return None
    return np.where(true, 1.0, np.where(false, 0.0, np.nan))


def _floats(cells: pa.ChunkedArray) -> NDArray[np.float64]:
    floats: NDArray[np.float64] = cells.combine_chunks().to_numpy(zero_copy_only=False)
    return floats.astype(np.float64, copy=False)


def _bools(cells: pa.ChunkedArray) -> NDArray[np.bool_]:
    bools: NDArray[np.bool_] = cells.to_numpy()
    return bools.astype(bool, copy=False)
