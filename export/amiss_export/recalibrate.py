"""A new threshold for a bundle that is there already, from the scores it was calibrated on."""

from pathlib import Path
from typing import Any

import numpy as np

from amiss_export.bundle import CALIBRATION, Bundle, read_bundle
from amiss_export.decision import calibrate
from amiss_export.publish import publish, writing_bundle

# What the bundle's report says that holds at any threshold; everything else would be stale.
METRICS_WITHOUT_THRESHOLD = (
    "auroc",
    "auprc",
    "fpr_at_95_tpr",
    "prevalence",
    "n_test",
    "n_anomalies",
)
_STALE_FILES = ("report/", "signature.json")
_EXAMPLES = "report/examples/"  # test rows to send: they are what they were


def recalibrate(
    models: Path,
    name: str,
    version: int,
    *,
    alarm_rate: float,
    confidence: float | None = None,
    created: str,
) -> int:
    """Number of the new version: the same model and calibration scores, another threshold.

    created: ISO time of the new version. The report and a signature stay behind, they speak of
    the old threshold; the report's example rows come along. Raises TooFewRows, naming the rows
    needed, before anything is written.
    """
    bundle = read_bundle(models, name, version)
    decision, ordered = calibrate(bundle.calibration, alarm_rate, confidence)
    manifest = bundle.manifest.model_copy(
        update={
            "decision": decision,
            "metrics": _still_true(bundle.manifest.metrics),
            "provenance": bundle.manifest.provenance.model_copy(
                update={"recalibrated_from": version, "created": created}
            ),
        }
    )
    with writing_bundle(models, name) as folder:
        _copy_files(bundle, folder)
        np.save(folder / CALIBRATION, ordered, allow_pickle=False)
        return publish(folder, manifest)


def _still_true(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in METRICS_WITHOUT_THRESHOLD if key in metrics}


def _copy_files(bundle: Bundle, folder: Path) -> None:
    """Copy what holds at any threshold, checked against its sha256 once more."""
    left_out = (*_STALE_FILES, bundle.manifest.decision.calibration_file)
    for file in bundle.manifest.files:
        if file.startswith(_EXAMPLES) or not file.startswith(left_out):
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(bundle.read(file))
