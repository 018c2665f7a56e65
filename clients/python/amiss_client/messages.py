"""What both clients share: requests cut to size on the way out, answers read on the way in."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss.v1 import model_pb2 as models
from amiss.v1 import scoring_pb2 as pb
from amiss_client.columns import Cells, Table, columns_of
from amiss_client.errors import AmissClientError, InvalidInput, ServerError
from amiss_client.results import (
    ColumnSpec,
    DetectorInfo,
    ImageSpec,
    LabelChange,
    RefusedBundle,
    Scores,
    TableSpec,
)

MAX_REQUEST_BYTES = 8 << 20  # keeps a request, and its answer, well inside any gRPC limit
MAX_IMAGES = 16  # encoded images in a request: small files may decode to large pictures

ImageLike = bytes | str | Path


@dataclass(frozen=True)
class Piece:
    """One request with the rows start <= row < stop of the caller's input."""

    request: pb.ScoreRequest
    start: int
    stop: int


def score_request(
    detector: str, version: str | int, include_reconstruction: bool
) -> pb.ScoreRequest:
    """The request without its input."""
    return pb.ScoreRequest(
        detector=detector, version=str(version), include_reconstruction=include_reconstruction
    )


def pinned(pieces: Iterator[Piece], version: int) -> Iterator[Piece]:
    """The pieces, asking for this version: a promotion in between must not mix two detectors."""
    for piece in pieces:
        piece.request.version = str(version)
        yield piece


def image_pieces(
    request: pb.ScoreRequest, images: Sequence[ImageLike], *, max_rows: int
) -> Iterator[Piece]:
    """Copies of the request with encoded images; a path is read when its piece is built.

    A piece ends at max_rows images, or before the image that would make it too large.
    """
    if isinstance(images, (bytes, str, Path)):
        raise InvalidInput("expected a sequence of images, got one; put it in a list: [image]")
    if not hasattr(images, "__len__"):
        raise InvalidInput(
            f"expected a sequence of images, got {type(images).__name__}; put them in a list"
        )
    if len(images) == 0:
        raise InvalidInput("expected at least one image, got 0")
    contents: list[bytes] = []
    start = size = 0
    for i, image in enumerate(images):
        data = _image_bytes(image)
        full = len(contents) == min(max_rows, MAX_IMAGES) or size + len(data) > MAX_REQUEST_BYTES
        if contents and full:
            yield _piece(request, start, i, images=pb.EncodedImages(contents=contents))
            contents, start, size = [], i, 0
        contents.append(data)
        size += len(data)
    yield _piece(request, start, len(images), images=pb.EncodedImages(contents=contents))


def tensor_pieces(
    request: pb.ScoreRequest, array: NDArray[Any], *, max_rows: int
) -> Iterator[Piece]:
    """Copies of the request with rows of a uint8 (n, c, h, w) or float32 (n, d) array."""
    data_type = _DATA_TYPES.get(np.asarray(array).dtype)
    if data_type is None or np.ndim(array) < 2:
        raise InvalidInput(
            "expected a uint8 array (n, channels, height, width) or a float32 array (n, columns), "
            f"got {np.asarray(array).dtype} {np.shape(array)}; convert it with .astype"
        )
    if len(array) == 0:
        raise InvalidInput("expected at least one row, got 0")
    for start, stop in _cuts(len(array), array.nbytes / len(array), max_rows):
        rows = array[start:stop]
        tensor = pb.Tensor(data_type=data_type, shape=rows.shape, data=rows.tobytes())
        yield _piece(request, start, stop, tensor=tensor)


def table_pieces(request: pb.ScoreRequest, table: Table, *, max_rows: int) -> Iterator[Piece]:
    """Copies of the request with rows of the table, numbers as raw float64, texts as texts."""
    cells = columns_of(table)
    n = len(next(iter(cells.values())))
    row_bytes = sum(map(_nbytes, cells.values())) / n
    for start, stop in _cuts(n, row_bytes, max_rows):
        columns = [_column(name, values[start:stop]) for name, values in cells.items()]
        yield _piece(request, start, stop, columns=pb.Columns(columns=columns))


def blame(error: AmissClientError, piece: Piece) -> AmissClientError:
    """The error, saying which rows it counts from when the input went out in several requests."""
    if piece.start and isinstance(error, InvalidInput):
        rows = f"rows {piece.start} to {piece.stop - 1}"
        error.args = (f"{rows}, counted from there: {error}",)
    return error


def scores_of(response: pb.ScoreResponse, piece: Piece) -> Scores:
    """The typed answer. Raises ServerError when it does not hold one verdict for each row."""
    score = np.asarray(response.scores, dtype=np.float32)
    normalized_score = np.asarray(response.normalized_scores, dtype=np.float32)
    p_value = np.asarray(response.p_values, dtype=np.float32)
    is_anomaly = np.asarray(response.is_anomaly, dtype=np.bool_)
    expected = piece.stop - piece.start
    got = [len(values) for values in (score, normalized_score, p_value, is_anomaly)]
    if got != [expected] * 4:
        raise ServerError(f"expected {expected} verdicts from the service, got {got}")
    return Scores(
        detector=response.detector,
        version=response.version,
        threshold=response.threshold,
        alarm_rate=response.alarm_rate,
        score=score,
        normalized_score=normalized_score,
        p_value=p_value,
        is_anomaly=is_anomaly,
        unseen_categories=response.unseen_category_count,
        missing_values=response.missing_value_count,
        reconstruction=_array(response.reconstruction)
        if response.HasField("reconstruction")
        else None,
    )


def join(parts: Sequence[Scores]) -> Scores:
    """One answer for all rows, from the answers to the pieces in order."""
    if len(parts) == 1:
        return parts[0]
    pictures = [part.reconstruction for part in parts if part.reconstruction is not None]
    return replace(
        parts[0],
        score=np.concatenate([part.score for part in parts]),
        normalized_score=np.concatenate([part.normalized_score for part in parts]),
        p_value=np.concatenate([part.p_value for part in parts]),
        is_anomaly=np.concatenate([part.is_anomaly for part in parts]),
        unseen_categories=sum(part.unseen_categories for part in parts),
        missing_values=sum(part.missing_values for part in parts),
        reconstruction=np.concatenate(pictures) if pictures else None,
    )


def detector_of(message: pb.Detector) -> DetectorInfo:
    """The typed description of a detector."""
    return DetectorInfo(
        name=message.name,
        version=message.version,
        kind=message.kind,
        readout=message.readout,
        labels=tuple(message.labels),
        input=_input_of(message),
        threshold=message.threshold,
        alarm_rate=message.alarm_rate,
        calibration_method=message.calibration_method,
        calibration_rows=message.calibration_row_count,
        created=message.create_time.ToDatetime(UTC) if message.HasField("create_time") else None,
    )


def refused_of(messages: Iterable[pb.RefusedBundle]) -> list[RefusedBundle]:
    """The typed list of bundles that are not served."""
    return [RefusedBundle(m.name, m.version, m.reason) for m in messages]


def label_change_of(message: models.PromoteResponse | models.RollbackResponse) -> LabelChange:
    """What a promotion or rollback has changed."""
    return LabelChange(message.version, message.version_before or None, dict(message.labels))


_DATA_TYPES: dict[np.dtype[Any], pb.DataType] = {
    np.dtype("u1"): pb.DATA_TYPE_UINT8,
    np.dtype("<f4"): pb.DATA_TYPE_FLOAT32,
}
_DTYPES = {data_type: dtype for dtype, data_type in _DATA_TYPES.items()}


def _piece(request: pb.ScoreRequest, start: int, stop: int, **values: Any) -> Piece:
    return Piece(
        pb.ScoreRequest(
            detector=request.detector,
            version=request.version,
            include_reconstruction=request.include_reconstruction,
            **values,
        ),
        start,
        stop,
    )


def _cuts(n: int, row_bytes: float, max_rows: int) -> Iterator[tuple[int, int]]:
    step = max(1, min(max_rows, int(MAX_REQUEST_BYTES / max(row_bytes, 1))))
    return ((start, min(start + step, n)) for start in range(0, n, step))


def _image_bytes(image: ImageLike) -> bytes:
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if not isinstance(image, (str, Path)):
        raise InvalidInput(
            f"expected the bytes of an image file, or its path, got {type(image).__name__}; "
            "arrays go to score_tensor"
        )
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read image {image}: {error.strerror or error}") from error


def _nbytes(cells: Cells) -> int:
    if isinstance(cells, np.ndarray):
        return cells.nbytes
    return sum(map(len, cells)) + 2 * len(cells)


def _column(name: str, cells: Cells) -> pb.Column:
    if isinstance(cells, np.ndarray):
        return pb.Column(name=name, float64_data=cells.tobytes())
    try:
        return pb.Column(name=name, texts=pb.Texts(values=cells))
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"column {name!r}: expected text that UTF-8 can hold, got {error.object!r:.80}"
        ) from error


def _array(tensor: pb.Tensor) -> NDArray[Any]:
    flat = np.frombuffer(tensor.data, dtype=_DTYPES[tensor.data_type])
    return flat.reshape(tuple(tensor.shape)).copy()  # the bytes are protobuf's: not to be written


def _input_of(message: pb.Detector) -> ImageSpec | TableSpec:
    if message.WhichOneof("input") == "image":
        return ImageSpec(message.image.channels, message.image.height, message.image.width)
    columns = (
        ColumnSpec(
            name=column.name,
            kind="category" if column.kind == pb.COLUMN_KIND_CATEGORY else "number",
            unit=column.unit,
            categories=tuple(column.categories),
            accepts_missing=column.accepts_missing,
        )
        for column in message.table.columns
    )
    return TableSpec(
        tuple(columns), tuple(message.table.source_columns), message.table.label_column
    )
