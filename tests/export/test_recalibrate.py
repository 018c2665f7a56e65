"""A new version with another threshold, from the stored calibration scores."""

from pathlib import Path

import numpy as np
import pytest

from amiss_export.bundle import list_versions, read_bundle
from amiss_export.errors import BadInput, TooFewRows
from amiss_export.publish import publish, writing_bundle
from amiss_export.recalibrate import METRICS_WITHOUT_THRESHOLD, recalibrate
from bundle_factory import write_table_bundle

NOW = "2026-02-03T04:05:06+00:00"


def with_report(models: Path) -> int:
    """Version of a bundle with a report, a signature, a nested file and metrics."""
    first = read_bundle(models, "table", write_table_bundle(models))
    metrics = {"auroc": 0.9, "prevalence": 0.1, "f1": 0.8, "per_class": {"a": 1}}
    with writing_bundle(models, "table") as folder:
        for file in first.manifest.files:
            (folder / file).write_bytes(first.read(file))
        for extra in (
            "report/index.html",
            "report/examples/a.json",
            "signature.json",
            "notes/why.txt",
        ):
            (folder / extra).parent.mkdir(exist_ok=True)
            (folder / extra).write_text("old")
        return publish(folder, first.manifest.model_copy(update={"metrics": metrics}))


def test_threshold_is_the_order_statistic_of_the_stored_scores(tmp_path: Path) -> None:
    """With n = 200 and rate 0.1 the threshold is the ceil(201 * 0.9) = 181st smallest score."""
    old = write_table_bundle(tmp_path, threshold_rate=0.05)
    new = recalibrate(tmp_path, "table", old, alarm_rate=0.1, created=NOW)
    before, after = (read_bundle(tmp_path, "table", version) for version in (old, new))
    assert new == old + 1
    assert after.manifest.decision.threshold == np.sort(before.calibration)[181 - 1]
    assert after.manifest.decision.alarm_rate == 0.1
    assert np.array_equal(after.calibration, before.calibration)
    assert after.read("model.onnx") == before.read("model.onnx")


def test_confidence_raises_the_threshold(tmp_path: Path) -> None:
    """The PAC bound at 95 % lies above the marginal threshold of the same rate."""
    old = write_table_bundle(tmp_path)
    marginal = recalibrate(tmp_path, "table", old, alarm_rate=0.1, created=NOW)
    pac = recalibrate(tmp_path, "table", old, alarm_rate=0.1, confidence=0.95, created=NOW)
    decisions = [read_bundle(tmp_path, "table", v).manifest.decision for v in (marginal, pac)]
    assert decisions[1].method == "pac"
    assert decisions[1].threshold > decisions[0].threshold


def test_what_speaks_of_the_old_threshold_stays_behind(tmp_path: Path) -> None:
    """Report, signature and metrics at the threshold are left out; example rows are kept."""
    old = with_report(tmp_path)
    new = read_bundle(
        tmp_path, "table", recalibrate(tmp_path, "table", old, alarm_rate=0.1, created=NOW)
    )
    assert set(new.manifest.files) == {
        "model.onnx",
        "model.pt",
        "calibration.npy",
        "notes/why.txt",
        "report/examples/a.json",
    }
    assert new.manifest.metrics == {"auroc": 0.9, "prevalence": 0.1}
    assert "f1" not in METRICS_WITHOUT_THRESHOLD
    assert new.manifest.provenance.recalibrated_from == old
    assert new.manifest.provenance.created == NOW
    assert new.manifest.parity == read_bundle(tmp_path, "table", old).manifest.parity


@pytest.mark.parametrize(
    ("rate", "confidence", "need"), [(0.001, None, "999"), (0.01, 0.99, "459")]
)
def test_too_few_rows_are_refused_with_the_number_needed(
    tmp_path: Path, rate: float, confidence: float | None, need: str
) -> None:
    """A rate that 200 scores cannot support writes nothing and says how many would do."""
    old = write_table_bundle(tmp_path)
    with pytest.raises(TooFewRows, match=f">= {need} calibration rows, got 200"):
        recalibrate(tmp_path, "table", old, alarm_rate=rate, confidence=confidence, created=NOW)
    assert list_versions(tmp_path) == {"table": [old]}


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_outside_its_range_is_refused(tmp_path: Path, rate: float) -> None:
    """An alarm rate that is no share raises BadInput."""
    with pytest.raises(BadInput, match="alarm_rate"):
        recalibrate(tmp_path, "table", write_table_bundle(tmp_path), alarm_rate=rate, created=NOW)
