"""Between amiss.v1 messages and what the service works with. Translation only."""

import datetime as dt
from collections.abc import Callable

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from amiss.v1 import scoring_pb2 as pb
from amiss_export.bundle import Column, ImageInput
from amiss_export.decode import Values
from amiss_export.errors import BadInput
from amiss_serving.detector import LoadedDetector
from amiss_serving.inputs import (
    Decoded,
    Limits,
    Spec,
    check_size,
    from_columns,
    from_images,
    from_tensor,
    tensor_from_bytes,
)
from amiss_serving.service import Answer
from amiss_serving.versions import Refused

DTYPES = {pb.DATA_TYPE_UINT8: "<u1", pb.DATA_TYPE_FLOAT32: "<f4"}
KINDS = {"number": pb.COLUMN_KIND_NUMBER, "category": pb.COLUMN_KIND_CATEGORY}
_UNFOLDED = 16  # bytes of pixels that a byte of a picture is taken for; it may be a thousand
_TEXT_BYTES = 32  # what reading one text costs, beside the eight bytes of a number


def size_bytes(request: pb.ScoreRequest) -> int:
    """How much work the request is to decode, without walking through its cells."""
    match request.WhichOneof("input"):
        case "images":
            return _UNFOLDED * sum(map(len, request.images.contents))
        case "columns":
            return sum(
                len(c.float64_data) + 8 * len(c.numbers.values) + _TEXT_BYTES * len(c.texts.values)
                for c in request.columns.columns
            )
        case _:
            return 0  # a tensor's bytes are used as they lie


def decoder(request: pb.ScoreRequest) -> Callable[[Spec, Limits], Decoded]:
    """What makes rows of the request. Raises BadInput when it holds no input."""
    match request.WhichOneof("input"):
        case "images":
            return lambda spec, limits: from_images(request.images.contents, spec, limits)
        case "tensor":
            return lambda spec, limits: from_tensor(_tensor(request.tensor), spec, limits)
        case "columns":
            return lambda spec, limits: from_columns(
                _columns(request.columns, limits), spec, limits
            )
        case _:
            raise BadInput("expected one of images, tensor or columns, got none; set one")


def score_response(answer: Answer) -> pb.ScoreResponse:
    """The verdicts as the wire has them."""
    detector, verdicts = answer.detector, answer.scored.verdicts
    decision = detector.rule.decision
    response = pb.ScoreResponse(
        detector=detector.name,
        version=detector.version,
        threshold=decision.threshold,
        alarm_rate=decision.alarm_rate,
        scores=verdicts.score.tolist(),
        normalized_scores=verdicts.normalized_score.tolist(),
        p_values=verdicts.p_value.tolist(),
        is_anomaly=verdicts.is_anomaly.tolist(),
        unseen_category_count=answer.unseen_categories,
        missing_value_count=answer.missing_values,
    )
    if answer.scored.reconstruction is not None:
        response.reconstruction.CopyFrom(_float_tensor(answer.scored.reconstruction))
    return response


def detector_message(detector: LoadedDetector) -> pb.Detector:
    """What one detector expects and how it decides."""
    manifest = detector.bundle.manifest
    decision = manifest.decision
    message = pb.Detector(
        name=detector.name,
        version=detector.version,
        kind=manifest.detector,
        readout=manifest.readout,
        labels=detector.labels,
        threshold=decision.threshold,
        alarm_rate=decision.alarm_rate,
        calibration_method=decision.method,
        calibration_row_count=decision.n,
        create_time=_timestamp(manifest.provenance.created),
    )
    if isinstance(manifest.input, ImageInput):
        image = manifest.input
        message.image.CopyFrom(
            pb.ImageInput(channels=image.channels, height=image.height, width=image.width)
        )
    else:
        table = manifest.input
        message.table.CopyFrom(
            pb.TableInput(
                columns=map(_column_spec, table.columns),
                source_columns=table.source_columns,
                label_column=table.label_column or "",
            )
        )
    return message


def refused_message(refused: Refused) -> pb.RefusedBundle:
    """One bundle that is not served."""
    return pb.RefusedBundle(name=refused.name, version=refused.version, reason=refused.reason)


def _tensor(tensor: pb.Tensor) -> NDArray[np.generic]:
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        raise BadInput(
            f"tensor.data_type must be DATA_TYPE_UINT8 or DATA_TYPE_FLOAT32, got {tensor.data_type}"
        )
    return tensor_from_bytes(tensor.data, dtype, tensor.shape)


def _columns(columns: pb.Columns, limits: Limits) -> dict[str, Values]:
    found: dict[str, Values] = {}
    for column in columns.columns:
        if column.name in found:
            raise BadInput(f"column {column.name!r:.80} is there twice; send it once")
        found[column.name] = _cells(column, limits)
    return found


def _cells(column: pb.Column, limits: Limits) -> Values:
    match column.WhichOneof("values"):
        case "numbers":
            return np.asarray(column.numbers.values, dtype=np.float64)
        case "float64_data":
            if len(column.float64_data) % 8:
                raise BadInput(
                    f"column {column.name!r:.80}: float64_data must hold 8 bytes a row, got "
                    f"{len(column.float64_data)} bytes"
                )
            return np.frombuffer(column.float64_data, dtype="<f8")
        case "texts":
            check_size(len(column.texts.values), 0, limits)
            return list(column.texts.values)
        case _:
            raise BadInput(f"column {column.name!r:.80} has no values; set numbers or texts")


def _float_tensor(values: NDArray[np.float32]) -> pb.Tensor:
    return pb.Tensor(
        data_type=pb.DATA_TYPE_FLOAT32,
        shape=values.shape,
        data=np.ascontiguousarray(values, dtype="<f4").tobytes(),
    )


def _column_spec(column: Column) -> pb.ColumnSpec:
    return pb.ColumnSpec(
        name=column.name,
        kind=KINDS[column.kind],
        unit=column.unit or "",
        categories=column.categories,
        accepts_missing=column.missing == "impute",
    )


def _timestamp(text: str) -> Timestamp | None:
    """The moment a manifest names, read as UTC when it names no zone; None when it is no moment."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
