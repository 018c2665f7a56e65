"""Messages of ModelInfer: whatever arrives is rows or bad input."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amiss.oip import open_inference_pb2 as pb
from amiss_export.bundle import ImageInput
from amiss_export.errors import AmissError
from amiss_serving.detector import LoadedDetector, Scored
from amiss_serving.inputs import Limits
from amiss_serving.oip_messages import (
    asked_outputs,
    decoder,
    infer_response,
    infer_response_bytes,
    is_raw,
    parameters_of,
    size_bytes,
)
from amiss_serving.oip_signature import DATATYPES
from amiss_serving.service import Answer

from .conftest import FakeRuntime, MakeDetector

IMAGE = ImageInput.model_validate({"channels": 1, "height": 2, "width": 2})
LIMITS = Limits(max_rows=10, max_bytes=1000, max_pixels=1)
NAMES = st.sampled_from(["images", "UINT8", "score", "timeout", ""]) | st.text(max_size=3)
PARAMETERS = st.dictionaries(
    NAMES,
    st.builds(pb.InferParameter, int64_param=st.none() | st.integers(-1, 9), bool_param=st.none()),
    max_size=2,
)
CONTENTS = st.none() | st.builds(
    pb.InferTensorContents,
    uint_contents=st.lists(st.integers(0, 300), max_size=5),
    fp32_contents=st.lists(st.floats(width=32), max_size=1),
)
TENSORS = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=NAMES,
    datatype=NAMES,
    shape=st.just([1, 1, 2, 2]) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    parameters=PARAMETERS,
    contents=CONTENTS,
)
REQUESTS = st.builds(
    pb.ModelInferRequest,
    parameters=PARAMETERS,
    inputs=st.lists(TENSORS, max_size=2),
    outputs=st.lists(
        st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=NAMES), max_size=2
    ),
    raw_input_contents=st.lists(st.binary(max_size=8), max_size=2),
)


@given(REQUESTS)
def test_every_message_is_rows_or_one_of_our_errors(request: pb.ModelInferRequest) -> None:
    """No request brings anything but rows of the detector or one of our errors."""
    assert size_bytes(request) >= 0
    try:
        parameters_of(request)
        asked_outputs(request)
        x = decoder(request)(IMAGE, LIMITS).x
    except AmissError:
        return
    assert (x.dtype, x.shape[1:]) == (np.uint8, (1, 2, 2))
    assert is_raw(request) != request.inputs[0].HasField("contents")


@given(
    rows=st.integers(1, 300),
    outputs=st.lists(st.sampled_from(sorted(DATATYPES)), unique=True, min_size=1),
    request_id=st.text(max_size=200),
    raw=st.booleans(),
)
def test_the_bytes_are_those_of_the_message(
    make_detector: MakeDetector, rows: int, outputs: list[str], request_id: str, raw: bool
) -> None:
    """However many rows, whichever outputs and id: parsed, they are the message field by field."""
    detector: LoadedDetector = make_detector(FakeRuntime())
    x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
    scored = Scored(detector.rule(x[:, 0]), x, (0.0, 0.0))
    answer, names = Answer(detector, scored, 0, 0), tuple(outputs)
    data = infer_response_bytes(answer, names, request_id=request_id, raw=raw)
    expected = infer_response(answer, names, request_id=request_id, raw=raw)
    assert pb.ModelInferResponse.FromString(data) == expected
