"""Two sets of images as one: those of the first are normal, those of the second the anomalies."""

import hashlib

import numpy as np

from amiss_export.bundle import ImageInput
from amiss_training.data.image_sources import ImageSource, Rows
from amiss_training.data.images import Pixels
from amiss_training.data.labels import IN, OUT


def in_vs_out(inside: ImageSource, outside: ImageSource) -> ImageSource:
    """The images of both, labelled "in" and "out", all of one size and colour: the first set's.

    Names of the second set's start with "out/". A test that the first set brings itself stays.
    """
    count = len(inside.names)
    out = np.ones(len(outside.names), dtype=bool)

    def pixels(rows: Rows, spec: ImageInput) -> Pixels:
        parts = (inside.pixels(rows[rows < count], spec), rows[rows >= count] - count)
        return np.concatenate([parts[0], outside.pixels(parts[1], spec)])

    def data_hash() -> str:
        both = f"{inside.data_hash()} {outside.data_hash()}"
        return hashlib.sha256(both.encode()).hexdigest()

    return ImageSource(
        name=f"{inside.name} against {outside.name}",
        names=[*inside.names, *(f"{OUT}/{name}" for name in outside.names)],
        label=np.array([IN] * count + [OUT] * len(out)),
        own_test=None if inside.own_test is None else np.concatenate([inside.own_test, out]),
        infer=inside.infer,
        pixels=pixels,
        data_hash=data_hash,
    )
