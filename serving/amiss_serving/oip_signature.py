"""What a detector takes and gives, in the terms of the Open Inference Protocol v2."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput
from amiss_export.errors import BadInput
from amiss_serving.inputs import Spec
from amiss_serving.service import Answer

THRESHOLD, RECONSTRUCTION = "threshold", "reconstruction"
DATATYPES = {
    "score": "FP32",
    "normalized_score": "FP32",
    "p_value": "FP32",
    "is_anomaly": "BOOL",
    THRESHOLD: "FP32",
    RECONSTRUCTION: "FP32",
}
BY_DEFAULT = tuple(name for name in DATATYPES if name != RECONSTRUCTION)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor by name, type and shape; -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def check(self, name: str, datatype: str, shape: Sequence[int]) -> None:
        """Nothing, when what arrived is this tensor with at least one row. Raises BadInput."""
        rows, *lengths = shape or (0,)
        if (
            name == self.name
            and datatype == self.datatype
            and rows >= 1
            and tuple(lengths) == self.shape[1:]
        ):
            return
        raise BadInput(
            f"expected one input {self.name!r} {self.datatype} {list(self.shape)} with at least "
            f"one row, got {name!r:.80} {datatype:.20} {list(shape)[:8]}"
        )


def input_of(spec: Spec) -> Tensor:
    """The one tensor that the detector scores."""
    if isinstance(spec, ImageInput):
        return Tensor("images", "UINT8", (-1, spec.channels, spec.height, spec.width))
    return Tensor("rows", "FP32", (-1, len(spec.columns)))


def outputs_of(spec: Spec) -> list[Tensor]:
    """Every tensor that the detector gives."""
    shapes = {THRESHOLD: (1,), RECONSTRUCTION: input_of(spec).shape}
    return [Tensor(name, kind, shapes.get(name, (-1,))) for name, kind in DATATYPES.items()]


@lru_cache(maxsize=256)
def checked_outputs(names: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs asked for, in order; without any all but the reconstruction. Raises BadInput."""
    if not names:
        return BY_DEFAULT
    unknown = [name for name in names if name not in DATATYPES]
    if unknown:
        raise BadInput(f"no output {unknown[0]!r:.80}; there are {', '.join(DATATYPES)}")
    if len(set(names)) < len(names):
        raise BadInput(f"expected each output once, got {list(names)[:12]}")
    return names


def values_of(answer: Answer, outputs: Sequence[str]) -> list[NDArray[Any]]:
    """The outputs' values, float32 or bool: (n,), the threshold (1,), a reconstruction (n, ...)."""
    return [_VALUES[name](answer) for name in outputs]


def _threshold(answer: Answer) -> NDArray[Any]:
    return np.array([answer.detector.rule.decision.threshold], dtype=np.float32)


_VALUES: Mapping[str, Callable[[Answer], Any]] = {
    "score": lambda answer: answer.scored.verdicts.score,
    "normalized_score": lambda answer: answer.scored.verdicts.normalized_score,
    "p_value": lambda answer: answer.scored.verdicts.p_value,
    "is_anomaly": lambda answer: answer.scored.verdicts.is_anomaly,
    RECONSTRUCTION: lambda answer: answer.scored.reconstruction,
    THRESHOLD: _threshold,
}
