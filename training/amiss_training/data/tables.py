"""Table files as a stream of batches: CSV (plain or gzipped), Parquet, NPZ and .mat.

Text stays text until a column is known to hold numbers, so that a code such as 007 survives.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from amiss_export.bundle import TableInput
from amiss_export.errors import BadInput
from amiss_training.data.arrays import read_arrays
from amiss_training.data.columns import Locate, columns_of
from amiss_training.data.csv_files import open_csv
from amiss_training.data.files import check_exists, kind_of, sha256_of
from amiss_training.data.parquet_files import open_parquet
from amiss_training.data.sources import (
    TableSource,
    require,
    table_source,
)

ARRAY_LABEL = "y"


def open_table(path: Path, known: TableInput | None = None) -> TableSource:
    """The table in the file. With a known input, a file without names is read by position.

    Raises BadInput for what is no table, for a header that repeats a name and, once the batches
    are read, for the first ragged line.
    """
    if check_exists(path).is_dir():
        raise BadInput(f"{path}: expected a table (CSV, Parquet, NPZ or .mat), got a folder")
    kind = kind_of(path)
    if kind == "text":
        return open_csv(path, known)
    if kind == "parquet":
        return open_parquet(path)
    if kind in ("npz", "mat"):
        return _open_arrays(path, known)
    raise BadInput(f"{path}: expected a table (CSV, Parquet, NPZ or .mat), got an {kind} file")


def iter_table(path: Path, spec: TableInput, chunk_rows: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns the detector reads, chunk by chunk: numbers float64, categories text, both (n,).

    A missing number is NaN, a missing category the empty text. Raises BadInput naming file, line
    and column. CSV and Parquet are streamed: memory holds a chunk, not the file.
    """
    source = open_table(path, spec)
    names = [column.name for column in spec.columns]
    require(path, names, source.columns)
    start = 0
    for table in source.batches(names, chunk_rows):
        yield columns_of(table, spec, where=_shifted(source.where, start))
        start += len(table)
    if start == 0:
        raise BadInput(f"{path}: expected at least one row, got 0")


def _open_arrays(path: Path, known: TableInput | None) -> TableSource:
    data, label = read_arrays(path)
    if data.ndim != 2:
        raise BadInput(f"{path}: expected a table (n, d), got an array of shape {data.shape}")
    names: tuple[str, ...] = tuple(f"f{j}" for j in range(data.shape[1]))
    if known and not {column.name for column in known.columns} & set(names):
        features = tuple(name for name in known.source_columns if name != known.label_column)
        names = features if len(features) == len(names) else names
    columns = {name: np.ascontiguousarray(data[:, j]) for j, name in enumerate(names)}
    if label is not None:
        columns[ARRAY_LABEL] = label
    return table_source(
        str(path),
        pa.table(columns),
        label_column=None if label is None else ARRAY_LABEL,
        data_hash=lambda: sha256_of([path]),
    )


def _shifted(where: Locate, start: int) -> Locate:
    return lambda row: where(start + row)
