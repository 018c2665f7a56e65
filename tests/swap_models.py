"""Versions of one table detector, told apart by their scores: version v says 4^v the formula."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from amiss.v1 import scoring_pb2 as pb
from bundle_factory import normal_rows, table_graph, table_scores, write_table_bundle


@dataclass
class Callers:
    """Callers that ask for the bare name over and over, and what they were answered."""

    stub: Any
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stopped: bool = False

    async def call(self, seed: int) -> None:
        """One caller: its own rows each time, checked against the version that answered."""
        while not self.stopped:
            x = normal_rows(2, seed=seed)
            tensor = pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=x.shape, data=x.tobytes())
            request = pb.ScoreRequest(detector="table", tensor=tensor)
            try:
                answer = await self.stub.Score(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                self.wrong.append(f"{error.code()}: {error.details()}")
                continue
            if not is_answer_of(answer.version, x, answer.scores):
                self.wrong.append(f"not the scores of version {answer.version}")
            self.answers[answer.version] += 1


def write_version(models: Path, version: int) -> None:
    """The next version of 'table', whose number is `version`, with a threshold of its own, too."""
    written = write_table_bundle(models, graph=_graph(version), seed=version)
    assert written == version


def is_answer_of(version: int, x: NDArray[np.float32], scores: Sequence[float]) -> bool:
    """Whether the scores are what that version, and no other, says of the rows."""
    return np.allclose(scores, 4.0**version * table_scores(x), rtol=1e-4)


def _graph(version: int) -> onnx.ModelProto:
    graph = table_graph(3)
    (deviation,) = (t for t in graph.graph.initializer if t.name == "deviation")
    smaller = numpy_helper.to_array(deviation) / np.float32(2**version)
    deviation.CopyFrom(numpy_helper.from_array(smaller, "deviation"))
    return graph
