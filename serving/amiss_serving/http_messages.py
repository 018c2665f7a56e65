"""The JSON of the HTTP door: one definition for the codec and for the OpenAPI document."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from amiss_export.bundle import ImageInput
from amiss_export.errors import BadInput
from amiss_serving.detector import LoadedDetector
from amiss_serving.inputs import Decoded, Limits, Spec, from_records, from_rows
from amiss_serving.service import Answer
from amiss_serving.versions import Refused

Records = Annotated[
    list[dict[str, Any]], Meta(description="Rows by column name; null or absent = missing.")
]
Rows = Annotated[
    list[list[float | None]],
    Meta(description="Rows in the detector's column order, categories as codes; null = missing."),
]


class ScoreBody(Struct, forbid_unknown_fields=True):
    """What to score: exactly one of records and rows."""

    records: Records | UnsetType = UNSET
    rows: Rows | UnsetType = UNSET


class RowResult(Struct):
    """The verdict of one row or image."""

    score: Annotated[float, Meta(description="Higher is more anomalous.")]
    normalized_score: Annotated[float, Meta(description="0 median normal, 0.5 threshold, 1 most.")]
    p_value: Annotated[float, Meta(description="Share of normals at least as anomalous.")]
    is_anomaly: Annotated[bool, Meta(description="Whether the score exceeds the threshold.")]
    reconstruction: Annotated[
        list[Any] | UnsetType, Meta(description="What the detector expected; when asked for.")
    ] = UNSET


class ScoreAnswer(Struct):
    """One result per row or image, in order."""

    detector: str
    version: int
    threshold: float
    alarm_rate: float
    results: list[RowResult]
    unseen_categories: Annotated[int, Meta(description="Categories that training never saw.")]
    missing_values: Annotated[int, Meta(description="Cells that were missing and were imputed.")]


class ImageAnswer(Struct):
    """Pictures are resized to this."""

    channels: int
    height: int
    width: int


class ColumnAnswer(Struct):
    """One column, in the order of `rows`; categories[i] travels as 2 + i, 0 unseen, 1 missing."""

    name: str
    kind: str
    unit: str | None
    categories: tuple[str, ...]
    accepts_missing: bool


class TableAnswer(Struct):
    """The columns that the detector reads."""

    columns: list[ColumnAnswer]


class DetectorAnswer(Struct):
    """What one detector expects, as image or table, and how it decides."""

    name: str
    version: int
    kind: str
    readout: str
    labels: tuple[str, ...]
    threshold: float
    alarm_rate: float
    calibration_method: str
    calibration_row_count: int
    create_time: str
    image: ImageAnswer | UnsetType = UNSET
    table: TableAnswer | UnsetType = UNSET


class RefusedAnswer(Struct):
    """A bundle on disk that is not served, and why."""

    name: str
    version: int
    reason: str


class DetectorsAnswer(Struct):
    """Every detector that can be asked, and what was refused."""

    detectors: list[DetectorAnswer]
    refused_bundles: list[RefusedAnswer]


class ErrorAnswer(Struct):
    """What was expected, what arrived, what to do."""

    error: str
    request_id: str


class StatusAnswer(Struct):
    """How the service stands."""

    status: str


MESSAGES = (ScoreBody, ScoreAnswer, DetectorAnswer, DetectorsAnswer, ErrorAnswer, StatusAnswer)
_body_decoder = msgspec.json.Decoder(ScoreBody)


def json_decoder(body: bytes) -> Callable[[Spec, Limits], Decoded]:
    """What makes rows of a JSON body; it reads the body only when called."""

    def decode(spec: Spec, limits: Limits) -> Decoded:
        try:
            asked = _body_decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise BadInput(f"expected JSON with records or rows, got: {error}") from error
        match asked.records, asked.rows:
            case list() as records, UnsetType():
                return from_records(records, spec, limits)
            case UnsetType(), list() as rows:
                return from_rows(rows, spec, limits)
            case _:
                raise BadInput("expected exactly one of 'records' and 'rows' in the JSON body")

    return decode


def score_answer(answer: Answer) -> bytes:
    """The verdicts as JSON."""
    detector, v = answer.detector, answer.scored.verdicts
    columns = (v.score, v.normalized_score, v.p_value, v.is_anomaly)
    results = [RowResult(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    if answer.scored.reconstruction is not None:
        finite = np.nan_to_num(answer.scored.reconstruction)
        for result, expected in zip(results, finite.tolist(), strict=True):
            result.reconstruction = expected
    return msgspec.json.encode(
        ScoreAnswer(
            detector=detector.name,
            version=detector.version,
            threshold=detector.rule.decision.threshold,
            alarm_rate=detector.rule.decision.alarm_rate,
            results=results,
            unseen_categories=answer.unseen_categories,
            missing_values=answer.missing_values,
        )
    )


def detector_answer(detector: LoadedDetector) -> DetectorAnswer:
    """What one detector expects and how it decides."""
    manifest = detector.bundle.manifest
    answer = DetectorAnswer(
        name=detector.name,
        version=detector.version,
        kind=manifest.detector,
        readout=manifest.readout,
        labels=detector.labels,
        threshold=manifest.decision.threshold,
        alarm_rate=manifest.decision.alarm_rate,
        calibration_method=manifest.decision.method,
        calibration_row_count=manifest.decision.n,
        create_time=manifest.provenance.created,
    )
    spec = manifest.input
    if isinstance(spec, ImageInput):
        answer.image = ImageAnswer(spec.channels, spec.height, spec.width)
    else:
        answer.table = TableAnswer(
            [
                ColumnAnswer(c.name, c.kind, c.unit, c.categories, c.missing == "impute")
                for c in spec.columns
            ]
        )
    return answer


def detectors_answer(detectors: list[LoadedDetector], refused: list[Refused]) -> DetectorsAnswer:
    """The whole list."""
    return DetectorsAnswer(
        [detector_answer(detector) for detector in detectors],
        [RefusedAnswer(r.name, r.version, r.reason) for r in refused],
    )


def schemas() -> dict[str, Any]:
    """JSON schemas of all messages, for the OpenAPI document."""
    _, components = msgspec.json.schema_components(
        MESSAGES, ref_template="#/components/schemas/{name}"
    )
    return components
