"""From an open set of images to rows in roles."""

import numpy as np

from amiss_export.errors import BadInput
from amiss_training.data import notes
from amiss_training.data.divide import divide, thin_test
from amiss_training.data.image_sources import ImageSource
from amiss_training.data.labels import UNLABELLED, classes_of, mark_anomalies
from amiss_training.data.options import DataOptions
from amiss_training.data.prepared import Prepared, draw, naming, without_repeats
from amiss_training.data.splits import role_hash, row_hashes


def prepare_images(
    source: ImageSource, options: DataOptions, *, loader: str, seed: int
) -> Prepared:
    """The images of the source, divided as the options say. Deterministic in seed.

    loader: the resolved one, whose usual normal class counts where none is named.
    """
    # 1. Read and label; draw if fewer images were asked for.
    if options.label_column is not None or options.attack_families:
        column = options.label_column
        asked = "attack_families" if column is None else f"label_column {column!r}"
        raise BadInput(
            f"{source.name}: {asked} is for tables; images are labelled by their folder, or by "
            "the labels beside them"
        )
    if options.category_columns:
        raise BadInput(f"{source.name}: category_columns is for tables; images have no columns")
    has_labels = source.label is not None
    classes = classes_of(options, loader, name=source.name, has_labels=has_labels)
    rows = draw(len(source.names), options.max_rows, seed=seed)
    spec = source.infer(options.image_size, options.channels)
    x = source.pixels(rows, spec)
    label = np.full(len(rows), UNLABELLED) if source.label is None else source.label[rows]

    # 2. Find the images that repeat; remove them if asked to.
    hashes = row_hashes(x)
    kept, repeats = without_repeats(hashes, label, remove=options.deduplicate)
    if len(kept) < len(rows):
        x, rows, label, hashes = x[kept], rows[kept], label[kept], hashes[kept]

    # 3. Divide, keeping the test that the data bring themselves.
    is_anomaly = mark_anomalies(label, classes, name=source.name)
    own_test = None if source.own_test is None else source.own_test[rows]
    with naming(source.name):
        roles = divide(hashes, is_anomaly, options, seed=seed, own_test=own_test)
        roles = thin_test(roles, is_anomaly, options.test_prevalence, seed=seed)
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
            *notes.on_repeats(repeats, len(label), options),
            *notes.on_protocol(options, roles, hashes, is_anomaly),
            *notes.on_test(roles, hashes, is_anomaly),
        ],
        masks=None if source.masks is None else source.masks(rows, spec),
    )
