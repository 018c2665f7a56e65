"""The bodies are those that each protocol has, and answers are read back."""

import json

import numpy as np
import pytest

from amiss.oip import open_inference_pb2 as oip
from bench.serving import doors
from bench.serving.doors import Answer
from bench.serving.models import NAME, images, rows

X = images(2)


def test_a_frame_says_how_long_its_message_is() -> None:
    """One byte for no compression, four for the length, most significant first."""
    assert doors.frame(b"x" * 258) == b"\x00\x00\x00\x01\x02" + b"x" * 258


def test_open_inference_over_grpc_is_raw() -> None:
    """The message names the model, one input and one output, and holds the pixels as they lie."""
    body = doors.oip_grpc("h:1").encode(X).body
    request = oip.ModelInferRequest.FromString(body[5:])
    assert (request.model_name, list(request.inputs[0].shape)) == (NAME, [2, 1, 28, 28])
    assert request.raw_input_contents == [X.tobytes()]
    assert [output.name for output in request.outputs] == ["score"]


def test_rows_of_a_table_are_floats() -> None:
    """The same door sends a table's rows under their own name and type, to the model named."""
    x = rows(3)
    request = oip.ModelInferRequest.FromString(doors.oip_grpc("h:1", "t").encode(x).body[5:])
    tensor = request.inputs[0]
    assert (request.model_name, tensor.name, tensor.datatype) == ("t", "rows", "FP32")
    assert list(tensor.shape) == [3, 121]
    assert request.raw_input_contents == [x.tobytes()]


@pytest.mark.parametrize("raw", [True, False])
def test_scores_are_read_raw_and_typed(*, raw: bool) -> None:
    """A server may answer in either form."""
    response = oip.ModelInferResponse()
    output = response.outputs.add(name="score", datatype="FP32", shape=[2])
    if raw:
        response.raw_output_contents.append(np.array([1, 2], dtype="<f4").tobytes())
    else:
        output.contents.fp32_contents.extend([1, 2])
    scores = doors.oip_grpc("h:1").decode(Answer({}, response.SerializeToString()))
    assert scores.tolist() == [1, 2]


def test_open_inference_over_http_says_where_its_json_ends() -> None:
    """The header's length splits the body into JSON and the pixels."""
    request = doors.oip_http("h:1").encode(X)
    length = int(request.headers[doors.HEADER_LENGTH])
    (tensor,) = json.loads(request.body[:length])["inputs"]
    assert request.body[length:] == X.tobytes()
    assert tensor["parameters"]["binary_data_size"] == X.nbytes


@pytest.mark.parametrize("length", [None, "2"])
def test_scores_are_read_from_json_and_from_bytes(length: str | None) -> None:
    """As the answer's header says."""
    scores = np.array([1, 2], dtype="<f4")
    text = json.dumps({"outputs": [{"name": "score", "data": [1.0, 2.0]}]}).encode()
    headers = {} if length is None else {doors.HEADER_LENGTH.lower(): length}
    body = text if length is None else b"{}" + scores.tobytes()
    assert doors.oip_http("h:1").decode(Answer(headers, body)).tolist() == [1, 2]


def test_torchserve_is_asked_in_protobuf() -> None:
    """Field 1 is the model, 3 a map entry of `body` and the pixels, lengths in base 128."""
    message = doors.torchserve_grpc("h:1").encode(X).body[5:]
    name = b"\x0a" + bytes([len(NAME)]) + NAME.encode()
    entry = b"\x0a\x04body\x12\xa0\x0c" + X.tobytes()  # 1568 = 0x20 + 0x0c * 128
    assert message == name + b"\x1a\xa9\x0c" + entry
    answer = Answer({}, b"\x0a\x0a[1.0, 2.0]")
    assert doors.torchserve_grpc("h:1").decode(answer).tolist() == [1, 2]
