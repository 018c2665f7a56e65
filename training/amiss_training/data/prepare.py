"""From a path to rows in roles: what a detector is trained, stopped, calibrated and tested on."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.decode import encode_columns
from amiss_export.errors import BadInput
from amiss_training.data.columns import columns_of
from amiss_training.data.image_sources import ImageSource
from amiss_training.data.in_vs_out import in_vs_out
from amiss_training.data.loaders import (
    IMAGE_LOADERS,
    locate,
    open_image_source,
    open_table_source,
)
from amiss_training.data.named import NAMED
from amiss_training.data.options import DataOptions, Loader, check_options
from amiss_training.data.prepare_images import prepare_images
from amiss_training.data.prepare_tables import prepare_table, table_labels
from amiss_training.data.prepared import Prepared
from amiss_training.data.sources import TableSource, require


def prepare(path: Path | None, options: DataOptions, *, seed: int) -> Prepared:
    """The data at the path (None for a starter), divided into roles. Deterministic in seed.

    Raises BadInput, in one line naming file and row or column, for data that cannot be used, and
    TooFewRows when there are too few normal rows for the roles.
    """
    check_options(options)
    path, loader = locate(path, options.loader, data_set=options.data_set)
    if loader in IMAGE_LOADERS:
        images = open_image_source(
            path,
            loader,
            side=options.image_size,
            attribute=options.celeba_attribute,
            official_split=options.official_split,
        )
        if options.out_data is not None:
            side = images.infer(options.image_size, options.channels).height
            images = in_vs_out(images, _open_out(options.out_data, side=side))
        return prepare_images(images, options, loader=loader, seed=seed)
    if options.out_data is not None:
        raise BadInput(f"{path or loader}: out_data is for images, got a table")
    return prepare_table(open_table_source(path, loader), options, loader=loader, seed=seed)


def class_names(path: Path | None, options: DataOptions) -> list[str]:
    """Every class among the labels of the data at the path, whichever of them is the normal one.

    No image is decoded. Raises BadInput where prepare does, and for data without labels.
    """
    check_options(options)
    path, loader = locate(path, options.loader, data_set=options.data_set)
    label: NDArray[np.str_] | None
    if loader in IMAGE_LOADERS:
        images = open_image_source(
            path, loader, side=options.image_size, attribute=options.celeba_attribute
        )
        name, label = images.name, images.label
    else:
        table = open_table_source(path, loader)
        name, label = table.name, _labels_alone(table, options)
    if label is None:
        raise BadInput(f"{name}: expected rows of several classes, got rows without labels")
    return [str(word) for word in np.unique(label)]


def _labels_alone(source: TableSource, options: DataOptions) -> NDArray[np.str_] | None:
    """The labels of a table of which nothing else is read; None without a label column."""
    column = options.label_column or source.label_column
    if column is None:
        return None
    require(source.name, [column], source.columns)
    return table_labels(
        source.read([column]),
        column,
        source=source,
        families=options.attack_families,
        where=source.where,
    )


def _open_out(out_data: str, *, side: int) -> ImageSource:
    """The images that are the anomalies: of a data set by name, or at a path."""
    name = out_data if out_data in NAMED else None
    path, loader = locate(None if name else Path(out_data), "auto", data_set=name)
    if loader not in IMAGE_LOADERS:
        raise BadInput(f"{out_data}: out_data must be images, got a table")
    return open_image_source(path, loader, side=side)


def load_labelled(
    path: Path | None,
    spec: ImageInput | TableInput,
    *,
    loader: Loader = "auto",
    data_set: str | None = None,
    label_column: str | None = None,
    attack_families: bool = False,
) -> tuple[NDArray[Any], NDArray[np.str_] | None, list[str]]:
    """Rows as an existing detector takes them, their labels (None without), and their names.

    label_column: by default the one the detector was trained with, when the file has it.
    attack_families: label KDD99's rows with them. Of a folder in MVTec's layout the test images.
    Raises BadInput where prepare does.
    """
    path, resolved = locate(path, loader, data_set=data_set)
    holds_images = resolved in IMAGE_LOADERS
    if holds_images != isinstance(spec, ImageInput):
        wanted, got = ("a table", "images") if holds_images else ("images", "a table")
        raise BadInput(f"{path or loader}: the detector takes {wanted}, got {got}")
    if isinstance(spec, ImageInput):
        return _load_images(open_image_source(path, resolved, side=spec.height), spec)
    source = open_table_source(path, resolved, spec)
    families = attack_families and source.is_kdd99
    return _load_rows(source, spec, label_column=label_column, families=families)


def _load_images(
    source: ImageSource, spec: ImageInput
) -> tuple[NDArray[np.uint8], NDArray[np.str_] | None, list[str]]:
    test = source.own_test
    rows = np.arange(len(source.names)) if test is None else np.flatnonzero(test)
    label = None if source.label is None else source.label[rows]
    return source.pixels(rows, spec), label, [source.names[row] for row in rows]


def _load_rows(
    source: TableSource, spec: TableInput, *, label_column: str | None, families: bool
) -> tuple[NDArray[np.float32], NDArray[np.str_] | None, list[str]]:
    features = [column.name for column in spec.columns]
    require(source.name, [*features, *filter(None, [label_column])], source.columns)
    known = spec.label_column if spec.label_column in source.columns else source.label_column
    label_name = label_column or known
    wanted = dict.fromkeys([*features, *filter(None, [label_name])])  # a label may be a feature
    table = source.read(list(wanted))
    x = encode_columns(columns_of(table, spec, where=source.where), spec).rows
    names = [str(row) for row in range(len(x))]
    if label_name is None:
        return x, None, names
    label = table_labels(table, label_name, source=source, families=families, where=source.where)
    return x, label, names
