"""A ScoringService without a model: it remembers what arrived and answers what it was told to.

The score of a row is the first number of it: cell, pixel, or byte of the encoded picture; a text
scores its length. Rows above 10 are anomalies.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from amiss.v1 import scoring_pb2 as pb
from amiss.v1.scoring_pb2_grpc import ScoringServiceServicer, add_ScoringServiceServicer_to_server

Ask = Callable[..., Any]  # the fixture `ask`: one method of a fresh client of either kind
TABLE = pb.Detector(
    name="table",
    version=3,
    kind="vae",
    readout="elbo",
    labels=["stable"],
    table=pb.TableInput(
        columns=[
            pb.ColumnSpec(name="size", kind=pb.COLUMN_KIND_NUMBER, unit="mm", accepts_missing=True),
            pb.ColumnSpec(name="colour", kind=pb.COLUMN_KIND_CATEGORY, categories=["red"]),
        ],
        source_columns=["size", "colour", "label"],
        label_column="label",
    ),
    threshold=10.0,
    alarm_rate=0.05,
    calibration_method="marginal",
    calibration_row_count=200,
)
IMAGE = pb.Detector(
    name="image", version=1, image=pb.ImageInput(channels=1, height=2, width=2), threshold=10.0
)


class FakeService(ScoringServiceServicer):
    """failures: (code, details, trailers) for the next calls, in order. delay_s: before answers."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.time_remaining_s: list[float] = []
        self.peers: set[str] = set()
        self.failures: deque[tuple[grpc.StatusCode, str, dict[str, str]]] = deque()
        self.fail_when: dict[int, tuple[grpc.StatusCode, str, dict[str, str]]] = {}
        self.delay_s = 0.0
        self.version = 3
        self.drop_a_verdict = False

    def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:  # noqa: N802 - the wire names it
        """Verdicts for the rows, after remembering the call."""
        self._enter(request, context)
        scores = scores_of(request)
        if int(scores[0]) in self.fail_when:
            _abort(context, *self.fail_when[int(scores[0])])
        time.sleep(self.delay_s if scores[0] == 0 else 0.0)
        response = pb.ScoreResponse(
            detector=request.detector,
            version=int(request.version) if request.version.isdigit() else self.version,
            threshold=10.0,
            alarm_rate=0.05,
            scores=scores.tolist(),
            normalized_scores=(scores / 20).tolist(),
            p_values=(1 / (1 + scores)).tolist(),
            is_anomaly=(scores > 10).tolist()[: -1 if self.drop_a_verdict else None],
            unseen_category_count=1,
            missing_value_count=2,
        )
        if request.include_reconstruction:
            pictures = np.repeat(scores[:, None], 2, axis=1).astype("<f4")
            response.reconstruction.CopyFrom(
                pb.Tensor(
                    data_type=pb.DATA_TYPE_FLOAT32,
                    shape=pictures.shape,
                    data=pictures.tobytes(),
                )
            )
        return response

    def ListDetectors(self, request: Any, context: Any) -> pb.ListDetectorsResponse:  # noqa: N802
        """The two detectors and one refused bundle."""
        self._enter(request, context)
        refused = pb.RefusedBundle(name="bad", version=2, reason="model.onnx is missing")
        return pb.ListDetectorsResponse(detectors=[TABLE, IMAGE], refused_bundles=[refused])

    def GetDetector(self, request: Any, context: Any) -> pb.GetDetectorResponse:  # noqa: N802
        """The table detector, whatever is asked for."""
        self._enter(request, context)
        return pb.GetDetectorResponse(detector=TABLE)

    def _enter(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.time_remaining_s.append(context.time_remaining())
        self.peers.add(context.peer())
        if self.failures:
            _abort(context, *self.failures.popleft())


def scores_of(request: pb.ScoreRequest) -> NDArray[np.float32]:
    """The first number of each row."""
    if request.WhichOneof("input") == "images":
        return np.array([data[0] for data in request.images.contents], dtype=np.float32)
    if request.WhichOneof("input") == "tensor":
        dtype = "u1" if request.tensor.data_type == pb.DATA_TYPE_UINT8 else "<f4"
        flat = np.frombuffer(request.tensor.data, dtype=dtype)
        return flat.reshape(request.tensor.shape[0], -1)[:, 0].astype(np.float32)
    column = request.columns.columns[0]
    if column.WhichOneof("values") == "texts":
        return np.array([len(text) for text in column.texts.values], dtype=np.float32)
    return np.frombuffer(column.float64_data, dtype="<f8").astype(np.float32)


@contextmanager
def running(service: FakeService) -> Iterator[FakeService]:
    """The service, listening on a free loopback port while the block runs."""
    server = grpc.server(
        ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 64 << 20)]
    )
    add_ScoringServiceServicer_to_server(service, server)
    service.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield service
    finally:
        server.stop(grace=None).wait()


def _abort(context: Any, code: grpc.StatusCode, details: str, trailers: dict[str, str]) -> None:
    context.set_trailing_metadata(tuple(trailers.items()))
    context.abort(code, details)
