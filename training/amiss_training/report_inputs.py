"""What a report is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import Manifest
from amiss_training.inspection import Inspection
from amiss_training.peers import Peer


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of; the arrays describe the m test rows.

    metrics: of `evaluate`; peers: of `peer_table`; peer_scores: of `peer_scores`. score (m,)
    float32, is_anomaly (m,) the truth, label (m,) and names (m,) texts, x the raw inputs of the
    graph, uint8 (m, c, h, w) or float32 (m, d). reconstruct maps such inputs to what the detector
    expected, in raw units. masks: (m, h, w), the truly defective pixels. By member of an ensemble,
    or of the only detector: histories, one dict per epoch with any numeric keys, and inspections.
    notes: lines to print.
    """

    title: str
    manifest: Manifest
    metrics: dict[str, Any]
    peers: Mapping[str, Mapping[str, Any]]
    peer_scores: Mapping[str, Peer]
    score: NDArray[np.float32]
    is_anomaly: NDArray[np.bool_]
    label: Sequence[str] | NDArray[Any]
    names: Sequence[str] | NDArray[Any]
    x: NDArray[Any]
    reconstruct: Callable[[NDArray[Any]], NDArray[Any]]
    masks: NDArray[np.bool_] | None = None
    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    inspections: Mapping[str, Inspection] = field(default_factory=dict)
    notes: Sequence[str] = ()
