"""From an open table to rows in roles."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from amiss_export.decode import encode_columns
from amiss_export.errors import BadInput
from amiss_training.data import kdd99, notes
from amiss_training.data.columns import Locate, columns_of, infer_table, row_keys
from amiss_training.data.divide import divide, reunite, thin_test
from amiss_training.data.labels import UNLABELLED, classes_of, labels_of, mark_anomalies
from amiss_training.data.options import DataOptions
from amiss_training.data.prepared import Prepared, draw, naming, without_repeats
from amiss_training.data.sources import TableSource, require
from amiss_training.data.splits import Indices, role_hash, row_hashes


def prepare_table(source: TableSource, options: DataOptions, *, loader: str, seed: int) -> Prepared:
    """The rows of the table, divided as the options say. Deterministic in seed.

    loader: the resolved one, whose usual normal class counts where none is named.
    """
    # 1. Read and label; draw if fewer rows were asked for.
    for name in ("image_size", "channels"):
        if getattr(options, name) is not None:
            raise BadInput(
                f"{source.name}: {name} is for images, but this is a table; leave it out"
            )
    label_column = options.label_column or source.label_column
    categories = (*options.category_columns, *(kdd99.CATEGORIES if source.is_kdd99 else ()))
    require(source.name, [*categories, *filter(None, [label_column])], source.columns)
    classes = classes_of(options, loader, name=source.name, has_labels=label_column is not None)
    table = source.read()
    rows = draw(len(table), options.max_rows, seed=seed)
    table = _take(table, rows)
    where = _at(source.where, rows)
    label = table_labels(
        table, label_column, source=source, families=options.attack_families, where=where
    )

    # 2. Find the rows that repeat; remove them if asked to.
    features = table.drop_columns([label_column]) if label_column else table
    hashes = row_hashes(row_keys(features, category_columns=categories, where=where))
    kept, repeats = without_repeats(hashes, label, remove=options.deduplicate)
    table, rows, label, hashes = _take(table, kept), rows[kept], label[kept], hashes[kept]
    where = _at(source.where, rows)

    # 3. Divide, then tell from the training rows alone what the columns are.
    is_anomaly = mark_anomalies(label, classes, name=source.name)
    with naming(source.name):
        roles = divide(hashes, is_anomaly, options, seed=seed)
    spec = infer_table(
        table,
        rows=roles.train,
        label_column=label_column,
        category_columns=categories,
        missing=options.missing,
        where=where,
        name=source.name,
    )
    x = encode_columns(columns_of(table, spec, where=where), spec).rows

    # 4. Keep apart the rows that have only now become equal.
    hashes = row_hashes(x)
    with naming(source.name):
        roles = reunite(roles, hashes, is_anomaly, options)
        roles = thin_test(roles, is_anomaly, options.test_prevalence, seed=seed)
    return Prepared(
        input=spec,
        x=x,
        label=label,
        classes=classes,
        is_anomaly=is_anomaly,
        roles=roles,
        names=[str(row) for row in rows.tolist()],
        data_hash=source.data_hash(),
        split_hash={role: role_hash(x, index) for role, index in roles.items()},
        split_rows={role: len(index) for role, index in roles.items()},
        duplicate_rows_removed=repeats if options.deduplicate else 0,
        notes=[
            *notes.on_repeats(repeats, len(label), options),
            *notes.on_dropped(spec),
            *notes.on_cells(x, spec, roles),
            *notes.on_protocol(options, roles, hashes, is_anomaly),
            *notes.on_test(roles, hashes, is_anomaly),
        ],
    )


def table_labels(
    table: pa.Table,
    column: str | None,
    *,
    source: TableSource,
    families: bool,
    where: Locate,
) -> NDArray[np.str_]:
    """The label of each row, (n,); of KDD99's attacks their families when asked for."""
    if families and not source.is_kdd99:
        raise BadInput(f"{source.name}: attack_families is for KDD99, got another table")
    if column is None:
        return np.full(len(table), UNLABELLED)
    label = labels_of(table[column], column, where=where)
    return kdd99.families_of(label) if families else label


def _take(table: pa.Table, rows: Indices) -> pa.Table:
    return table if len(rows) == len(table) else table.take(pa.array(rows))


def _at(where: Locate, rows: Indices) -> Locate:
    return lambda i: where(int(rows[i]))
