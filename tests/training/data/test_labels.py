"""Labels: compared as text, named when absent."""

import numpy as np
import pyarrow as pa
import pytest

from amiss_export.errors import BadInput
from amiss_training.data.labels import (
    Classes,
    classes_of,
    label_text,
    labels_of,
    mark_anomalies,
)
from amiss_training.data.options import DataOptions

LABEL = np.array(["0", "1", "2", "0"])


def test_normal_and_anomaly_class_are_two_views() -> None:
    """The normal class leaves the rest anomalous; the anomaly class leaves the rest normal."""
    assert mark_anomalies(LABEL, Classes(normal="0"), name="f").tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert mark_anomalies(LABEL, Classes(anomaly="2"), name="f").tolist() == [
        *(False, False, True, False)
    ]
    assert not mark_anomalies(LABEL, Classes(), name="f").any()


def test_labels_that_are_floats_are_found_by_the_whole_number() -> None:
    """Images labelled 0.0 and 1.0, as an NPZ may have them, are the classes 0 and 1."""
    label = np.array([0.0, 1.0, 1.0]).astype(np.str_)
    for wanted in ("1", "1.0"):
        classes = classes_of(DataOptions(normal_class=wanted), "npz", name="f", has_labels=True)
        assert mark_anomalies(label, classes, name="f").tolist() == [True, False, False]


def test_absent_class_lists_those_there() -> None:
    """A class that no row has is refused with the classes that occur."""
    with pytest.raises(BadInput, match=r"f\.csv: no row has the normal class '7'.*'0', '1', '2'"):
        mark_anomalies(LABEL, Classes(normal="7"), name="f.csv")


def test_no_normals_is_refused() -> None:
    """When the anomaly class is everything there are no normals to learn."""
    with pytest.raises(BadInput, match="no normals"):
        mark_anomalies(np.array(["1", "1"]), Classes(anomaly="1"), name="f.csv")


def test_default_normal_class_is_the_loaders() -> None:
    """Without an option the normal class is 0, or what the data set calls normal."""

    def default(loader: str) -> str | None:
        return classes_of(DataOptions(), loader, name="f", has_labels=True).normal

    assert [default(name) for name in ("table", "kdd99", "mvtec")] == ["0", "normal", "good"]


def test_out_data_decide_alone_what_is_anomalous() -> None:
    """With another set as the anomalies, no label of the data themselves counts."""
    options = DataOptions(out_data="elsewhere")
    assert classes_of(options, "idx", name="f", has_labels=True) == Classes(anomaly="out")


def test_class_without_labels_is_refused() -> None:
    """Naming a class of rows that have no label is an oversight, said so."""
    with pytest.raises(BadInput, match=r"'1'.*no labels"):
        classes_of(DataOptions(anomaly_class="1"), "table", name="f", has_labels=False)


def test_whole_floats_compare_as_integers() -> None:
    """1.0 and 1 are one class; 007 and 7 are two."""
    assert [label_text(t) for t in ("1.0", "1.", " 1", "-2.00")] == ["1", "1", "1", "-2"]
    assert [label_text(t) for t in ("007", "1.5", "a.0")] == ["007", "1.5", "a.0"]


def test_row_without_label_is_named() -> None:
    """An empty label is refused with its place."""
    column = pa.chunked_array([pa.array(["a", " "])])
    with pytest.raises(BadInput, match="line 3, column 'y': expected a label, got none"):
        labels_of(column, "y", where=lambda row: f"line {row + 2}")
