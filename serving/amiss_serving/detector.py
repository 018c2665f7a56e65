"""A bundle that is ready to score: its graph in a runtime, and the rule that makes verdicts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import Bundle, ImageInput, TableInput, read_bundle, read_labels
from amiss_export.decision import DecisionRule, Verdicts
from amiss_export.errors import AmissError, BundleRefused
from amiss_serving.runtime import Runtime
from amiss_serving.runtimes import DEFAULTS, RuntimeOptions, open_runtime

SCORE, RECONSTRUCTION = "score", "reconstruction"


class Scored(msgspec.Struct, frozen=True, gc=False):
    """Verdicts for n rows; reconstruction (n, ...) float32 when it was asked for.

    ran_s: moments, as of time.monotonic, at which the model's run for them began and ended.
    """

    verdicts: Verdicts
    reconstruction: NDArray[np.float32] | None
    ran_s: tuple[float, float]

    def part(self, start: int, stop: int, *, reconstruct: bool) -> "Scored":
        """Rows start to stop; the reconstruction is left out unless reconstruct."""
        v, r = self.verdicts, self.reconstruction
        verdicts = Verdicts(
            v.score[start:stop],
            v.normalized_score[start:stop],
            v.p_value[start:stop],
            v.is_anomaly[start:stop],
        )
        rows = r[start:stop] if reconstruct and r is not None else None
        return Scored(verdicts, rows, self.ran_s)


def joined(parts: Sequence[Scored]) -> Scored:
    """The rows of all parts, in order; reconstructions too, where the parts have them."""
    verdicts = [part.verdicts for part in parts]
    reconstructions = [part.reconstruction for part in parts if part.reconstruction is not None]
    return Scored(
        Verdicts(*[np.concatenate(columns) for columns in zip(*verdicts, strict=True)]),
        np.concatenate(reconstructions) if reconstructions else None,
        (min(part.ran_s[0] for part in parts), max(part.ran_s[1] for part in parts)),
    )


@dataclass(frozen=True, eq=False)
class LoadedDetector:
    """A bundle ready to score. One object per loaded version, compared by identity."""

    bundle: Bundle
    runtime: Runtime
    rule: DecisionRule
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.bundle.name

    @property
    def version(self) -> int:
        return self.bundle.version

    @property
    def spec(self) -> ImageInput | TableInput:
        return self.bundle.manifest.input

    def score(self, x: NDArray[Any], *, reconstruct: bool = False) -> Scored:
        """Verdicts for one checked batch x: uint8 (n, c, h, w) or float32 (n, d). Blocks."""
        began_s = time.monotonic()
        values = self.run(x, (SCORE, RECONSTRUCTION) if reconstruct else (SCORE,))
        verdicts = self.rule(values[SCORE])
        return Scored(verdicts, values.get(RECONSTRUCTION), (began_s, time.monotonic()))

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
        """The graph's own outputs. Raises AmissError when one is not float32 of the right shape."""
        values = self.runtime.run(x, outputs)
        expected = {SCORE: (len(x),), RECONSTRUCTION: x.shape}
        for output, value in values.items():
            if value.shape != expected[output] or value.dtype != np.float32:
                raise AmissError(
                    f"{self.name}@{self.version}: output {output!r} must be float32 "
                    f"{expected[output]}, got {value.dtype} {value.shape}"
                )
        return values


def load_detector(
    models: Path, name: str, version: int, *, options: RuntimeOptions = DEFAULTS
) -> LoadedDetector:
    """The detector of a bundle, checked file by file, tried and warmed up.

    Raises BundleNotFound and BundleRefused, and BadInput for options that do not fit this machine.
    """
    bundle = read_bundle(models, name, version)
    labels = tuple(sorted(k for k, v in read_labels(models, name).items() if v == version))
    try:
        return open_bundle(bundle, options, labels=labels)
    except BundleRefused as error:
        if options.gpu_mem_limit_bytes is None:
            raise
        limit = f"gpu_mem_limit_bytes {options.gpu_mem_limit_bytes}"
        raise BundleRefused(f"{error} (with {limit})") from error


def open_bundle(
    bundle: Bundle, options: RuntimeOptions = DEFAULTS, *, labels: tuple[str, ...] = ()
) -> LoadedDetector:
    """The detector of a bundle that was read, tried and warmed up. Raises as `load_detector`."""
    detector = LoadedDetector(
        bundle=bundle,
        runtime=open_runtime(bundle, options),
        rule=DecisionRule(bundle.manifest.decision, bundle.calibration),
        labels=labels,
    )
    for n in sorted({1, *options.warm_up_rows}):
        _try(detector, n)
    return detector


def _try(detector: LoadedDetector, n: int) -> None:
    """Run the graph on n rows: what memory and plans it needs for them is made here, not while a
    caller waits, and one that does not fit its manifest is refused."""
    spec = detector.spec
    rows: NDArray[Any]
    if isinstance(spec, ImageInput):
        rows = np.zeros((n, spec.channels, spec.height, spec.width), np.uint8)
    else:
        rows = np.zeros((n, len(spec.columns)), np.float32)
    try:
        detector.run(rows, (SCORE,))
        detector.run(rows, (SCORE, RECONSTRUCTION))
    except Exception as error:  # the runtimes have no common base class
        raise BundleRefused(
            f"{detector.bundle.path}: the graph does not take {rows.dtype} {rows.shape}, as the "
            f"manifest says: {error}"
        ) from error
