"""Options: contradictions are refused before any file is read."""

import re

import pytest

from amiss_export.errors import BadInput
from amiss_training.data.options import DataOptions, check_options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DataOptions(normal_class="0", anomaly_class="1"), "exclude each other"),
        (DataOptions(train_share=0), "train_share must lie between 0 and 1, got 0"),
        (DataOptions(train_share=0.9, early_stop_share=0.2), "must be at most 1, got 1.25"),
        (DataOptions(image_size=0), "image_size must be >= 1, got 0"),
        (DataOptions(max_rows=-3), "max_rows must be >= 1, got -3"),
        (DataOptions(data_set="emnist"), "no data set 'emnist'; there are: arrhythmia, bloodmnist"),
        (DataOptions(data_set="mnist", loader="idx"), "data_set 'mnist' and loader 'idx' exclude"),
        (DataOptions(official_split=True), "official_split is for data sets of images by name"),
        (DataOptions(data_set="kdd99", official_split=True), "official_split is for data sets of"),
        (DataOptions(celeba_attribute="Bald"), "'Bald' is for data_set 'celeba', got None"),
        (DataOptions(contamination=1.0), "contamination must be 0 or a share below 1, got 1.0"),
        (DataOptions(test_prevalence=0), "test_prevalence must lie between 0 and 1, got 0"),
        (DataOptions(oracle_flag_share=1.5), "oracle_flag_share must lie between 0 and 1, got 1.5"),
        (DataOptions(out_data="o", normal_class="0"), "'0' and out_data 'o' exclude each other"),
        (
            DataOptions(contamination=0.1, keep_anomalies_out=False),
            "keep_anomalies_out false leaves it to chance; give one",
        ),
    ],
)
def test_refuses(options: DataOptions, message: str) -> None:
    """An option out of range is named together with its value."""
    with pytest.raises(BadInput, match=re.escape(message)):
        check_options(options)


def test_accepts_shares_that_leave_no_test() -> None:
    """Three shares that add up to one are allowed, rounding included."""
    check_options(DataOptions(train_share=0.7, early_stop_share=0.1, calibration_share=0.2))


def test_defaults_are_accepted() -> None:
    """The defaults contradict nothing."""
    check_options(DataOptions())
