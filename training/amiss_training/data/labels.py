"""Labels as text, and which of them are normal."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.data import cells
from amiss_training.data.columns import Locate, some
from amiss_training.data.options import DEFAULT_NORMAL_CLASS, DataOptions

UNLABELLED = "normal"
IN, OUT = "in", "out"
_WHOLE_FLOAT = re.compile(r"(-?\d+)\.0*")

Labels = NDArray[np.str_]


@dataclass(frozen=True)
class Classes:
    """The class that decides what is normal: exactly one of the two is set, none without labels."""

    normal: str | None = None
    anomaly: str | None = None


def classes_of(options: DataOptions, loader: str, *, name: str, has_labels: bool) -> Classes:
    """The class the options name, or the loader's usual normal class; BadInput without labels.

    With out_data the anomalies are the images of that other set.
    """
    if options.out_data is not None:
        return Classes(anomaly=OUT)
    asked = options.normal_class if options.normal_class is not None else options.anomaly_class
    if not has_labels:
        if asked is not None:
            raise BadInput(
                f"{name}: class {asked!r} was named but the rows have no labels; "
                "name the label column of a table, or give every class of images a folder"
            )
        return Classes()
    if options.anomaly_class is not None:
        return Classes(anomaly=label_text(options.anomaly_class))
    return Classes(normal=label_text(asked or DEFAULT_NORMAL_CLASS.get(loader, "0")))


def mark_anomalies(label: Labels, classes: Classes, *, name: str) -> NDArray[np.bool_]:
    """(n,) True where the label is an anomaly's; all False without labels.

    Raises BadInput when the class is absent, listing those there, and when no row is normal.
    """
    if classes == Classes():
        return np.zeros(len(label), dtype=bool)
    wanted = classes.normal if classes.anomaly is None else classes.anomaly
    distinct, index = np.unique(label, return_inverse=True)
    there = distinct.tolist()
    chosen = np.array([label_text(word) == wanted for word in there])[index]
    if not chosen.any():
        role = "normal" if classes.anomaly is None else "anomaly"
        raise BadInput(
            f"{name}: no row has the {role} class {wanted!r}; classes there: {some(there, most=30)}"
        )
    is_anomaly: NDArray[np.bool_] = ~chosen if classes.anomaly is None else chosen
    if is_anomaly.all():
        raise BadInput(f"{name}: every row is an anomaly (class {wanted!r}); there are no normals")
    return is_anomaly


def labels_of(column: pa.ChunkedArray, name: str, *, where: Locate) -> Labels:
    """The labels as text, (n,); BadInput naming the place of a row without one."""
    words = cells.texts(column)
    empty = words == ""
    if empty.any():
        row = int(np.flatnonzero(empty)[0])
        raise BadInput(f"{where(row)}, column {name!r}: expected a label, got none")
    distinct, index = np.unique(words, return_inverse=True)
    return np.array([label_text(word) for word in distinct], dtype=np.str_)[index]


def label_text(label: str) -> str:
    """The label as it is compared: 1.0, as pandas writes a whole float, is 1."""
    whole = _WHOLE_FLOAT.fullmatch(label.strip())
    return whole[1] if whole else label.strip()
