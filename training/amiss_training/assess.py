"""How good an exported graph is on test rows, beside the simple peers on the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amiss_export.bundle import Decision, ImageInput, Manifest, TableInput
from amiss_export.decision import DecisionRule, Verdicts
from amiss_export.graph import ImageFeatures, TableFeatures
from amiss_export.parity import onnx_reconstruction, onnx_scores
from amiss_training.data import Prepared
from amiss_training.evaluate import evaluate
from amiss_training.evaluate_images import reconstruction_quality
from amiss_training.inspection import Inspection
from amiss_training.peers import Peer, peer_scores, peer_table
from amiss_training.report import ReportInputs
from amiss_training.rows import spread

MAX_QUALITY_ROWS = 1_000

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Assessment:
    """Verdicts (m,) on the test rows, metrics of `evaluate`, and each peer's scores and figures.

    metrics of images also hold "reconstruction", see `reconstruction_quality`.
    """

    verdicts: Verdicts
    metrics: dict[str, Any]
    peers: Mapping[str, Mapping[str, Any]]
    peer_scores: Mapping[str, Peer]


def assess(
    onnx: Path,
    *,
    decision: Decision,
    calibration: NDArray[np.float32],
    prepared: Prepared,
    seed: int,
    untrained: NDArray[Any] | None = None,
    oracle_flag_share: float | None = None,
) -> Assessment:
    """What the graph in `onnx` does on the test rows of `prepared`.

    Peers are fitted on every normal row our detector saw: train, early-stop and calibration.
    untrained: scores (m,) of the test rows by the same network with its initial weights.
    oracle_flag_share: see `evaluate`.
    """
    roles, is_anomaly = prepared.roles, prepared.is_anomaly[prepared.roles.test]
    features = _feature_map(prepared.input, prepared.x[roles.train])
    verdicts = DecisionRule(decision, calibration)(onnx_scores(onnx, prepared.x[roles.test]))

    # 1. The peers, on the features our detector sees.
    seen = np.concatenate([roles.train, roles.early_stop, roles.calibration])
    test = _mapped(features, prepared.x[roles.test])
    peers = peer_scores(_mapped(features, prepared.x[seen]), test, seed=seed, untrained=untrained)

    # 2. How far each row is from its reconstruction, on the same features.
    expected = _mapped(features, onnx_reconstruction(onnx, prepared.x[roles.test]))
    error = np.square(test - expected).reshape(len(test), -1).mean(axis=1)
    metrics = evaluate(
        verdicts=verdicts,
        is_anomaly=is_anomaly,
        label=prepared.label[roles.test],
        decision=decision,
        reconstruction_error=error,
        oracle_flag_share=oracle_flag_share,
        is_mixture=bool(prepared.is_anomaly[roles.calibration].any()),
    )
    normals = spread(np.flatnonzero(~is_anomaly), MAX_QUALITY_ROWS)
    if isinstance(features, ImageFeatures) and len(normals):
        metrics["reconstruction"] = reconstruction_quality(test[normals], expected[normals])
    return Assessment(
        verdicts=verdicts,
        metrics=metrics,
        peers=peer_table(peers, is_anomaly, ours=verdicts.score),
        peer_scores=peers,
    )


def report_inputs(
    assessment: Assessment,
    *,
    manifest: Manifest,
    prepared: Prepared,
    onnx: Path,
    histories: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    inspections: Mapping[str, Inspection] | None = None,
) -> ReportInputs:
    """What the report of an assessed detector is made of; by member: histories, inspections."""
    test = prepared.roles.test
    return ReportInputs(
        title=manifest.name,
        manifest=manifest,
        metrics=assessment.metrics,
        peers=assessment.peers,
        peer_scores=assessment.peer_scores,
        score=assessment.verdicts.score,
        is_anomaly=prepared.is_anomaly[test],
        label=prepared.label[test],
        names=[prepared.names[row] for row in test],
        x=prepared.x[test],
        reconstruct=lambda x: onnx_reconstruction(onnx, x),
        masks=None if prepared.masks is None else prepared.masks[test],
        histories=histories or {},
        inspections=inspections or {},
        notes=prepared.notes,
    )


def peer_features(
    spec: ImageInput | TableInput, x: NDArray[Any], *, train: NDArray[np.int64]
) -> Features:
    """What the peers see of raw rows: pixels 0..1 (n, c, h, w), or standardised columns (n, f)."""
    return _mapped(_feature_map(spec, x[train]), x)


def _feature_map(
    spec: ImageInput | TableInput, train: NDArray[Any]
) -> ImageFeatures | TableFeatures:
    """Raw rows to what detectors and peers see: pixels 0..1, or a table's standardised features."""
    return ImageFeatures() if isinstance(spec, ImageInput) else TableFeatures(spec, train)


def _mapped(features: ImageFeatures | TableFeatures, x: NDArray[Any]) -> Features:
    with torch.no_grad():
        rows: torch.Tensor = features(torch.from_numpy(x))
    return np.asarray(rows.numpy(), dtype=np.float32)
