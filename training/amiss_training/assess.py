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
from amiss_export.graph import TableFeatures
from amiss_export.parity import onnx_reconstruction, onnx_scores
from amiss_training.data import Prepared
from amiss_training.evaluate import evaluate
from amiss_training.peers import Peer, peer_scores, peer_table
from amiss_training.report import ReportInputs


@dataclass(frozen=True)
class Assessment:
    """Verdicts (m,) on the test rows, metrics of `evaluate`, and each peer's scores and figures."""

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
) -> Assessment:
    """What the graph in `onnx` does on the test rows of `prepared`.

    Peers are fitted on every normal row our detector saw: train, early-stop and calibration.
    """
    roles = prepared.roles
    seen = np.concatenate([roles.train, roles.early_stop, roles.calibration])
    features = peer_features(prepared.input, prepared.x, train=roles.train)
    peers = peer_scores(features[seen], features[roles.test], seed=seed)
    is_anomaly = prepared.is_anomaly[roles.test]
    verdicts = DecisionRule(decision, calibration)(onnx_scores(onnx, prepared.x[roles.test]))
    return Assessment(
        verdicts=verdicts,
        metrics=evaluate(
            verdicts=verdicts,
            is_anomaly=is_anomaly,
            label=prepared.label[roles.test],
            decision=decision,
        ),
        peers=peer_table(peers, is_anomaly),
        peer_scores=peers,
    )


def report_inputs(
    assessment: Assessment,
    *,
    manifest: Manifest,
    prepared: Prepared,
    onnx: Path,
    history: Sequence[Mapping[str, float]] = (),
) -> ReportInputs:
    """What the report of an assessed detector is made of."""
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
        history=history,
        notes=prepared.notes,
    )


def peer_features(
    spec: ImageInput | TableInput, x: NDArray[Any], *, train: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What the peers see (n, f): pixels 0..1, or a table's features as our detectors see them."""
    if isinstance(spec, ImageInput):
        return (x.reshape(len(x), -1) / np.float32(255)).astype(np.float32)
    features: NDArray[np.float32] = TableFeatures(spec, x[train])(torch.from_numpy(x)).numpy()
    return features
