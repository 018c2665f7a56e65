"""The client that is awaited: the same as client.py but for the call itself."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

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
    from amiss.v1.model_pb2_grpc import ModelServiceAsyncStub
    from amiss.v1.scoring_pb2_grpc import ScoringServiceAsyncStub

    Call = grpc.aio.UnaryUnaryCall[pb.ScoreRequest, pb.ScoreResponse]


class AsyncClient:
    """A connection to an Amiss service for one event loop, which it joins at its first call.

    The arguments are those of Client.
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
        self._credentials = credentials

    async def score_images(
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
        pieces = messages.image_pieces(request, images, max_rows=max_rows)
        return await self._score(pieces, timeout_s)

    async def score_tensor(
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
        pieces = messages.tensor_pieces(request, array, max_rows=max_rows)
        return await self._score(pieces, timeout_s)

    async def score_table(
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
        pieces = messages.table_pieces(request, table, max_rows=max_rows)
        return await self._score(pieces, timeout_s)

    async def list_detectors(self, *, timeout_s: float | None = None) -> list[DetectorInfo]:
        """Every detector the service can be asked for."""
        response = await self._ask(self._stub.ListDetectors, pb.ListDetectorsRequest(), timeout_s)
        return [messages.detector_of(detector) for detector in response.detectors]

    async def list_refused_bundles(self, *, timeout_s: float | None = None) -> list[RefusedBundle]:
        """Bundles on the service's disk that it does not serve, each with the reason."""
        response = await self._ask(self._stub.ListDetectors, pb.ListDetectorsRequest(), timeout_s)
        return messages.refused_of(response.refused_bundles)

    async def get_detector(
        self, name: str, version: str | int = "", *, timeout_s: float | None = None
    ) -> DetectorInfo:
        """What one detector expects and how it decides."""
        request = pb.GetDetectorRequest(name=name, version=str(version))
        response = await self._ask(self._stub.GetDetector, request, timeout_s)
        return messages.detector_of(response.detector)

    async def promote(
        self, name: str, version: str | int, label: str, *, timeout_s: float | None = None
    ) -> LabelChange:
        """Point a label at a version (number or label), after the service has loaded it."""
        request = models.PromoteRequest(name=name, version=str(version), label=label)
        response = await self._ask(self._models.Promote, request, timeout_s)
        return messages.label_change_of(response)

    async def rollback(self, name: str, *, timeout_s: float | None = None) -> LabelChange:
        """Point "stable" at the version it meant before. Not to be sent twice."""
        response = await self._ask(
            self._models.Rollback, models.RollbackRequest(name=name), timeout_s
        )
        return messages.label_change_of(response)

    async def close(self) -> None:
        """Close the channel; requests in flight are cancelled."""
        self._connection = replace(self._connection, is_open=False)
        if "_channel" in self.__dict__:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        address, options = self._connection.address, self._connection.options()
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options)
        return grpc.aio.secure_channel(address, self._credentials, options)

    @cached_property
    def _stub(self) -> "ScoringServiceAsyncStub":
        return ScoringServiceStub(self._channel)

    @cached_property
    def _models(self) -> "ModelServiceAsyncStub":
        return ModelServiceStub(self._channel)

    async def _score(self, pieces: Iterator[Piece], timeout_s: float | None) -> Scores:
        """All answers as one. The version that answers first answers for every row."""
        parts = [await self._receive(*self._send(next(pieces), timeout_s))]
        in_flight: deque[tuple[Piece, Attempt, Call]] = deque()
        try:
            for piece in messages.pinned(pieces, parts[0].version):
                in_flight.append(self._send(piece, timeout_s))
                if len(in_flight) >= self._connection.max_in_flight:
                    parts.append(await self._receive(*in_flight.popleft()))
            while in_flight:
                parts.append(await self._receive(*in_flight.popleft()))
        finally:
            for _, _, call in in_flight:
                call.cancel()
        return messages.join(parts)

    def _send(self, piece: Piece, timeout_s: float | None) -> "tuple[Piece, Attempt, Call]":
        attempt = self._connection.attempt(timeout_s)
        call = self._stub.Score(piece.request, timeout=attempt.timeout_s, metadata=attempt.metadata)
        return piece, attempt, call

    async def _receive(self, piece: Piece, attempt: Attempt, call: "Call") -> Scores:
        try:
            return messages.scores_of(await call, piece)
        except grpc.RpcError as error:
            raise messages.blame(self._connection.translate(error, attempt), piece) from error

    async def _ask(
        self, method: Callable[..., Any], request: object, timeout_s: float | None
    ) -> Any:
        attempt = self._connection.attempt(timeout_s)
        try:
            return await method(request, timeout=attempt.timeout_s, metadata=attempt.metadata)
        except grpc.RpcError as error:
            raise self._connection.translate(error, attempt) from error
