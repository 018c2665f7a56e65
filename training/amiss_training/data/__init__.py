"""Data in: files and folders read, columns told apart, rows divided into roles. No torch here."""

from amiss_training.data.columns import describe
from amiss_training.data.image_sources import iter_images
from amiss_training.data.labels import Classes, mark_anomalies
from amiss_training.data.options import DataOptions, Loader
from amiss_training.data.prepare import class_names, load_labelled, prepare
from amiss_training.data.prepared import Prepared
from amiss_training.data.splits import Roles
from amiss_training.data.tables import iter_table

__all__ = [
    "Classes",
    "DataOptions",
    "Loader",
    "Prepared",
    "Roles",
    "class_names",
    "describe",
    "iter_images",
    "iter_table",
    "load_labelled",
    "mark_anomalies",
    "prepare",
]
