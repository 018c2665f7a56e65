"""From a path to rows in roles: what a detector is trained, stopped, calibrated and tested on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.decode import encode_columns
from amiss_export.errors import BadInput, TooFewRows
from amiss_training.data import kdd99, notes
from amiss_training.data.columns import Locate, columns_of, infer_table, row_keys
from amiss_training.data.image_sources import ImageSource, open_images
from amiss_training.data.labels import UNLABELLED, Classes, classes_of, labels_of, mark_anomalies
from amiss_training.data.loaders import IMAGE_LOADERS, open_table_source, resolve_loader
from amiss_training.data.options import DataOptions, Loader, check_options
from amiss_training.data.sources import TableSource, require
from amiss_training.data.splits import (
    Indices,
    Roles,
    keep_apart,
    role_hash,
    row_hashes,
    split_roles,
    split_with_own_test,
)


@dataclass(frozen=True)
class Prepared:
    """Data ready for a detector: rows, what they are, and who plays which role.

    input: what the graph takes. x: float32 (n, d) with category codes, or uint8 (n, c, h, w).
    label: (n,) text, "normal" without labels; classes: which label is normal. is_anomaly: (n,).
    names: image paths below the folder, or 0-based row numbers in the file. data_hash: sha256 of
    the source; split_hash, split_rows: by role. notes: lines to show people.
    """

    input: ImageInput | TableInput
    x: NDArray[Any]
    label: NDArray[np.str_]
    classes: Classes
    is_anomaly: NDArray[np.bool_]
    roles: Roles
    names: list[str]
    data_hash: str
    split_hash: dict[str, str]
    split_rows: dict[str, int]
    duplicate_rows_removed: int
    notes: list[str]


def prepare(path: Path | None, options: DataOptions, *, seed: int) -> Prepared:
    """The data at the path (None for a starter), divided into roles. Deterministic in seed.

    Raises BadInput, in one line naming file and row or column, for data that cannot be used, and
    TooFewRows when there are too few normal rows for the roles.
    """
    check_options(options)
    loader = resolve_loader(path, options.loader)
    if loader in IMAGE_LOADERS:
        return _prepare_images(path, loader, options, seed=seed)
    return _prepare_table(path, loader, options, seed=seed)


def _prepare_table(
    path: Path | None, loader: Loader, options: DataOptions, *, seed: int
) -> Prepared:
    # 1. Read and label; draw if fewer rows were asked for.
    source = open_table_source(path, loader)
    label_column = options.label_column or source.label_column
    categories = (*options.category_columns, *(kdd99.CATEGORIES if source.is_kdd99 else ()))
    require(source.name, [*categories, *filter(None, [label_column])], source.columns)
    classes = classes_of(options, loader, name=source.name, has_labels=label_column is not None)
    table = source.read()
    rows = _draw(len(table), options.max_rows, seed=seed)
    table = _take(table, rows)
    where = _at(source.where, rows)
    label = _labels(table, label_column, where=where)

    # 2. Find the rows that repeat; remove them if asked to.
    features = table.drop_columns([label_column]) if label_column else table
    hashes = row_hashes(row_keys(features, category_columns=categories, where=where))
    kept, repeats = _without_repeats(hashes, label, remove=options.deduplicate)
    table, rows, label, hashes = _take(table, kept), rows[kept], label[kept], hashes[kept]
    where = _at(source.where, rows)

    # 3. Divide, then tell from the training rows alone what the columns are.
    is_anomaly = mark_anomalies(label, classes, name=source.name)
    with _naming(source.name):
        roles = split_roles(hashes, is_anomaly, shares=options.shares, seed=seed)
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
    with _naming(source.name):
        roles = keep_apart(roles, hashes, ~is_anomaly)
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
            *notes.on_repeats(repeats, len(label), removed=options.deduplicate),
            *notes.on_dropped(spec),
            *notes.on_cells(x, spec, roles),
            *notes.on_test(roles, hashes, is_anomaly),
        ],
    )


def _prepare_images(
    path: Path | None, loader: Loader, options: DataOptions, *, seed: int
) -> Prepared:
    # 1. Read and label; draw if fewer images were asked for.
    source = open_images(path, loader)
    if options.label_column is not None:
        raise BadInput(
            f"{source.name}: label_column {options.label_column!r} is for tables; images are "
            "labelled by their folder, or by the labels beside them"
        )
    has_labels = source.label is not None
    classes = classes_of(options, loader, name=source.name, has_labels=has_labels)
    rows = _draw(len(source.names), options.max_rows, seed=seed)
    spec = source.infer(options.image_size, options.channels)
    x = source.pixels(rows, spec)
    label = np.full(len(rows), UNLABELLED) if source.label is None else source.label[rows]

    # 2. Find the images that repeat; remove them if asked to.
    hashes = row_hashes(x)
    kept, repeats = _without_repeats(hashes, label, remove=options.deduplicate)
    if len(kept) < len(rows):
        x, rows, label, hashes = x[kept], rows[kept], label[kept], hashes[kept]

    # 3. Divide, keeping the test that the data bring themselves.
    is_anomaly = mark_anomalies(label, classes, name=source.name)
    with _naming(source.name):
        if source.own_test is None:
            roles = split_roles(hashes, is_anomaly, shares=options.shares, seed=seed)
        else:
            own_test = source.own_test[rows]
            roles = split_with_own_test(
                hashes, is_anomaly, own_test, shares=options.shares, seed=seed
            )
    return Prepared(
        input=spec,
        x=x,
        label=label,
        classes=classes,
        is_anomaly=is_anomaly,
        roles=roles,
        names=[source.names[row] for row in rows],
        data_hash=source.data_hash(),
        split_hash={role: role_hash(x, index) for role, index in roles.items()},
        split_rows={role: len(index) for role, index in roles.items()},
        duplicate_rows_removed=repeats if options.deduplicate else 0,
        notes=[
            *notes.on_repeats(repeats, len(label), removed=options.deduplicate),
            *notes.on_test(roles, hashes, is_anomaly),
        ],
    )


def load_labelled(
    path: Path | None,
    spec: ImageInput | TableInput,
    *,
    loader: Loader = "auto",
    label_column: str | None = None,
) -> tuple[NDArray[Any], NDArray[np.str_] | None, list[str]]:
    """Rows as an existing detector takes them, their labels (None without), and their names.

    label_column: by default the one the detector was trained with, when the file has it. Of a
    folder in MVTec's layout the test images. Raises BadInput where prepare does.
    """
    resolved = resolve_loader(path, loader)
    holds_images = resolved in IMAGE_LOADERS
    if holds_images != isinstance(spec, ImageInput):
        wanted, got = ("a table", "images") if holds_images else ("images", "a table")
        raise BadInput(f"{path or loader}: the detector takes {wanted}, got {got}")
    if isinstance(spec, ImageInput):
        return _load_images(open_images(path, resolved), spec)
    return _load_rows(open_table_source(path, resolved, spec), spec, label_column=label_column)


def _load_images(
    source: ImageSource, spec: ImageInput
) -> tuple[NDArray[np.uint8], NDArray[np.str_] | None, list[str]]:
    test = source.own_test
    rows = np.arange(len(source.names)) if test is None else np.flatnonzero(test)
    label = None if source.label is None else source.label[rows]
    return source.pixels(rows, spec), label, [source.names[row] for row in rows]


def _load_rows(
    source: TableSource, spec: TableInput, *, label_column: str | None
) -> tuple[NDArray[np.float32], NDArray[np.str_] | None, list[str]]:
    features = [column.name for column in spec.columns]
    require(source.name, [*features, *filter(None, [label_column])], source.columns)
    known = spec.label_column if spec.label_column in source.columns else source.label_column
    label_name = label_column or known
    wanted = dict.fromkeys([*features, *filter(None, [label_name])])  # a label may be a feature
    table = source.read(list(wanted))
    label = labels_of(table[label_name], label_name, where=source.where) if label_name else None
    x = encode_columns(columns_of(table, spec, where=source.where), spec).rows
    return x, label, [str(row) for row in range(len(x))]


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the name of the data before a complaint that there are too few rows of them."""
    try:
        yield
    except TooFewRows as error:
        raise TooFewRows(f"{name}: {error}") from error


def _draw(count: int, most: int | None, *, seed: int) -> Indices:
    """All row numbers, or `most` of them at random, in order."""
    if most is None or most >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _take(table: pa.Table, rows: Indices) -> pa.Table:
    return table if len(rows) == len(table) else table.take(pa.array(rows))


def _at(where: Locate, rows: Indices) -> Locate:
    return lambda i: where(int(rows[i]))


def _labels(table: pa.Table, column: str | None, *, where: Locate) -> NDArray[np.str_]:
    if column is None:
        return np.full(len(table), UNLABELLED)
    return labels_of(table[column], column, where=where)


def _without_repeats(
    hashes: NDArray[np.uint64], label: NDArray[np.str_], *, remove: bool
) -> tuple[Indices, int]:
    """The rows to keep, in order, and how many rows repeat an earlier one with its label."""
    _, code = np.unique(label, return_inverse=True)
    pairs = np.stack([hashes, code.astype(np.uint64)], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    repeats = len(hashes) - len(first)
    return (np.sort(first) if remove else np.arange(len(hashes))), repeats
