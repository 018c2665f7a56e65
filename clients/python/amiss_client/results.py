"""What the service answers, as typed values: scores of rows, and descriptions of detectors."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Verdict(NamedTuple):
    """The answer for one row, as plain numbers; see Scores for their meaning."""

    score: float
    normalized_score: float
    p_value: float
    is_anomaly: bool


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """Answers for n rows in the order they were sent; each array is (n,).

    score: float32, higher = more anomalous. normalized_score: float32, 0 the median normal, 0.5
    the threshold, 1 at most. p_value: float32, share of calibration normals at least as anomalous.
    is_anomaly: bool, score above the threshold.
    unseen_categories, missing_values: cells in the request that training never saw, or were empty.
    reconstruction: float32, what the detector expected to see, (n, columns) or
    (n, channels, height, width); None unless asked for.
    """

    detector: str
    version: int
    threshold: float
    alarm_rate: float
    score: NDArray[np.float32]
    normalized_score: NDArray[np.float32]
    p_value: NDArray[np.float32]
    is_anomaly: NDArray[np.bool_]
    unseen_categories: int = 0
    missing_values: int = 0
    reconstruction: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def __iter__(self) -> Iterator[Verdict]:
        return map(
            Verdict,
            self.score.tolist(),
            self.normalized_score.tolist(),
            self.p_value.tolist(),
            self.is_anomaly.tolist(),
        )

    def __repr__(self) -> str:
        counts = {
            "unseen categories": self.unseen_categories,
            "missing values": self.missing_values,
        }
        extra = "".join(f", {n} {what}" for what, n in counts.items() if n)
        return (
            f"<Scores {self.detector}@{self.version}: {len(self)} row(s), "
            f"{int(self.is_anomaly.sum())} above threshold {self.threshold:.6g} "
            f"(alarm rate {self.alarm_rate:g}){extra}>"
        )


@dataclass(frozen=True)
class ImageSpec:
    """An image detector's input: uint8 (n, channels, height, width); 1 channel grey, 3 colour."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a table detector. In a raw tensor categories[i] travels as 2 + i."""

    name: str
    kind: Literal["number", "category"]
    unit: str = ""
    categories: tuple[str, ...] = ()
    accepts_missing: bool = True


@dataclass(frozen=True)
class TableSpec:
    """A table detector's input: float32 (n, len(columns)), or columns by name.

    source_columns: every column of the training file in file order; label_column: the one of
    them that held the label, "" for none.
    """

    columns: tuple[ColumnSpec, ...]
    source_columns: tuple[str, ...] = ()
    label_column: str = ""


@dataclass(frozen=True)
class DetectorInfo:
    """What a detector expects and how it decides.

    kind: the model, e.g. "vae"; readout: how the score is read off it. A row is an anomaly when
    its score exceeds threshold, which lets a share alarm_rate of normal rows alarm, as calibrated
    on calibration_rows normals by calibration_method ("marginal" or "pac").
    """

    name: str
    version: int
    kind: str
    readout: str
    labels: tuple[str, ...]
    input: ImageSpec | TableSpec
    threshold: float
    alarm_rate: float
    calibration_method: str
    calibration_rows: int
    created: datetime | None


@dataclass(frozen=True)
class RefusedBundle:
    """A bundle on the service's disk that it does not serve, and why."""

    name: str
    version: int
    reason: str


@dataclass(frozen=True)
class LabelChange:
    """A label that was moved: the version it means now, and before (None for none).

    labels: every label of the detector, as they now stand.
    """

    version: int
    version_before: int | None
    labels: dict[str, int]
