"""The client that waits for its answers; see aio.py for the one that is awaited."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
from numpy.typing import NDArray

from amiss.v1 import model_pb2 as models
from amiss.v1 import scoring_pb2 as pb
from amiss.v1.model_pb2_grpc import ModelServiceStub
from amiss.v1.scoring_pb2_grpc import ScoringServiceStub
from amiss_client import messages
from amiss_client.columns import Table
from amiss_client.connection import Attempt, Connection
from amiss_client.messages import ImageLike, Piece
from amiss_client.results import DetectorInfo, LabelChange, RefusedBundle, Scores

if TYPE_CHECKING:
    from grpc import _CallFuture

    Call = _CallFuture[pb.ScoreResponse]

Response = TypeVar("Response")


class Client:
    """A connection to an Amiss service, safe to share between threads.

    token: None reads the environment variable AMISS_TOKEN. timeout_s: deadline of each request;
    every method takes its own. credentials: for a service behind TLS. Larger inputs are sent in
    requests of at most max_rows_per_request rows, at most max_in_flight of them at a time.
    Every method raises AmissClientError, as the class that says what happened.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8001",
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        credentials: grpc.ChannelCredentials | None = None,
        max_rows_per_request: int = 1024,
        max_in_flight: int = 4,
    ) -> None:
        self._connection = Connection(
            address, token, timeout_s, max_rows_per_request, max_in_flight
        )
        options = self._connection.options()
        self._channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        self._stub = ScoringServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)

    def score_images(
        self,
        detector: str,
        images: Sequence[ImageLike],
        *,
        version: str | int = "",
        include_reconstruction: bool = False,
        timeout_s: float | None = None,
    ) -> Scores:
        """Scores of encoded images (PNG, JPEG, ...), given as bytes or as paths of files."""
        request = messages.score_request(detector, version, include_reconstruction)
        max_rows = self._connection.max_rows_per_request
        return self._score(messages.image_pieces(request, images, max_rows=max_rows), timeout_s)

    def score_tensor(
        self,
        detector: str,
        array: NDArray[Any],
        *,
        version: str | int = "",
        include_reconstruction: bool = False,
        timeout_s: float | None = None,
    ) -> Scores:
        """Scores of uint8 images (n, channels, height, width) or float32 rows (n, columns)."""
        request = messages.score_request(detector, version, include_reconstruction)
        max_rows = self._connection.max_rows_per_request
        return self._score(messages.tensor_pieces(request, array, max_rows=max_rows), timeout_s)

    def score_table(
        self,
        detector: str,
        table: Table,
        *,
        version: str | int = "",
        include_reconstruction: bool = False,
        timeout_s: float | None = None,
    ) -> Scores:
        """Scores of rows, by column name: a mapping of columns, records, or a data frame."""
        request = messages.score_request(detector, version, include_reconstruction)
        max_rows = self._connection.max_rows_per_request
        return self._score(messages.table_pieces(request, table, max_rows=max_rows), timeout_s)

    def list_detectors(self, *, timeout_s: float | None = None) -> list[DetectorInfo]:
        """Every detector the service can be asked for."""
        response = self._ask(self._stub.ListDetectors, pb.ListDetectorsRequest(), timeout_s)
        return [messages.detector_of(detector) for detector in response.detectors]

    def list_refused_bundles(self, *, timeout_s: float | None = None) -> list[RefusedBundle]:
        """Bundles on the service's disk that it does not serve, each with the reason."""
        response = self._ask(self._stub.ListDetectors, pb.ListDetectorsRequest(), timeout_s)
        return messages.refused_of(response.refused_bundles)

    def get_detector(
        self, name: str, version: str | int = "", *, timeout_s: float | None = None
    ) -> DetectorInfo:
        """What one detector expects and how it decides."""
        request = pb.GetDetectorRequest(name=name, version=str(version))
        response = self._ask(self._stub.GetDetector, request, timeout_s)
        return messages.detector_of(response.detector)

    def promote(
        self, name: str, version: str | int, label: str, *, timeout_s: float | None = None
    ) -> LabelChange:
        """Point a label at a version (number or label), after the service has loaded it."""
        request = models.PromoteRequest(name=name, version=str(version), label=label)
        response = self._ask(self._models.Promote, request, timeout_s)
        return messages.label_change_of(response)

    def rollback(self, name: str, *, timeout_s: float | None = None) -> LabelChange:
        """Point "stable" at the version it meant before. Not to be sent twice."""
        response = self._ask(self._models.Rollback, models.RollbackRequest(name=name), timeout_s)
        return messages.label_change_of(response)

    def close(self) -> None:
        """Close the channel; requests in flight are cancelled."""
        self._connection = replace(self._connection, is_open=False)
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _score(self, pieces: Iterator[Piece], timeout_s: float | None) -> Scores:
        """All answers as one. The version that answers first answers for every row."""
        parts = [self._receive(*self._send(next(pieces), timeout_s))]
        in_flight: deque[tuple[Piece, Attempt, Call]] = deque()
        try:
            for piece in messages.pinned(pieces, parts[0].version):
                in_flight.append(self._send(piece, timeout_s))
                if len(in_flight) >= self._connection.max_in_flight:
                    parts.append(self._receive(*in_flight.popleft()))
            while in_flight:
                parts.append(self._receive(*in_flight.popleft()))
        finally:
            for _, _, call in in_flight:
                call.cancel()
        return messages.join(parts)

    def _send(self, piece: Piece, timeout_s: float | None) -> "tuple[Piece, Attempt, Call]":
        attempt = self._connection.attempt(timeout_s)
        call = self._stub.Score.future(
            piece.request, timeout=attempt.timeout_s, metadata=attempt.metadata
        )
        return piece, attempt, call

    def _receive(self, piece: Piece, attempt: Attempt, call: "Call") -> Scores:
        try:
            return messages.scores_of(call.result(), piece)
        except grpc.RpcError as error:
            raise messages.blame(self._connection.translate(error, attempt), piece) from error

    def _ask(
        self, method: Callable[..., Response], request: object, timeout_s: float | None
    ) -> Response:
        attempt = self._connection.attempt(timeout_s)
        try:
            return method(request, timeout=attempt.timeout_s, metadata=attempt.metadata)
        except grpc.RpcError as error:
            raise self._connection.translate(error, attempt) from error
