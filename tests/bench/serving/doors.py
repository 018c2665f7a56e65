"""How each server is asked: bodies serialised beforehand, and an ordinary client to check answers.

Every OIP server gets the same bytes: raw contents, one output (`score`) asked for.
"""

import base64
import json
import struct
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import grpc
import numpy as np
from numpy.typing import NDArray

from amiss.oip import open_inference_pb2 as oip
from amiss.v1 import scoring_pb2 as v1

from .models import NAME, SEED, Images, Inputs, Model, Scores

OIP_INFER = "/inference.GRPCInferenceService/ModelInfer"
V1_SCORE = "/amiss.v1.ScoringService/Score"
TORCHSERVE_PREDICT = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
HEADER_LENGTH = "Inference-Header-Content-Length"
ASK_LIMIT_S = 30.0
TOLERANCE = 1e-4
TENSORS = {"uint8": ("images", "UINT8"), "float32": ("rows", "FP32")}  # by what is asked about


@dataclass(frozen=True)
class Request:
    """One POST as it goes over the wire; of gRPC the frame and its message."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What came back: the message of gRPC, or the headers and body of HTTP."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Door:
    """One way into one server. `name` is gRPC, HTTP, ...; gRPC speaks HTTP/2, the rest HTTP/1.1."""

    name: str
    url: str
    encode: Callable[[Inputs], Request]
    decode: Callable[[Answer], NDArray[np.floating]]

    @property
    def http2(self) -> bool:
        return self.name.startswith("gRPC")

    def ask(self, x: Inputs) -> tuple[Scores, int]:
        """The scores by grpcio or urllib, and the bytes that the answer's body took."""
        request = self.encode(x)
        answer = _ask_grpc(self, request) if self.http2 else _ask_http(self, request)
        size = len(answer.body) + (len(frame(b"")) if self.http2 else 0)
        return np.asarray(self.decode(answer), dtype=np.float32).ravel(), size


def check(door: Door, model: Model, *, rows: int, requests: int = 24) -> int:
    """Bytes of the answer to so many rows, when many requests at once get each their own scores.

    Raises RuntimeError when one does not match bare ONNX Runtime.
    """
    asked = [model.inputs(rows, seed=seed) for seed in range(SEED, SEED + requests)]
    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(door.ask, asked))
    for x, (scores, _) in zip(asked, answered, strict=True):
        expected = model.scores(x)
        if scores.shape != expected.shape or not np.allclose(scores, expected, rtol=TOLERANCE):
            raise RuntimeError(f"{door.url}: expected the scores {expected}, got {scores}")
    return answered[0][1]


def oip_grpc(address: str, name: str = NAME) -> Door:
    """The Open Inference Protocol over gRPC."""
    encode = partial(_oip_message, name=name)
    return Door("gRPC", f"http://{address}{OIP_INFER}", encode, _oip_scores)


def oip_http(address: str) -> Door:
    """The Open Inference Protocol over HTTP, with binary tensors."""
    return Door("HTTP", f"http://{address}/v2/models/{NAME}/infer", _oip_binary, _oip_http_scores)


def oip_json(address: str) -> Door:
    """The Open Inference Protocol over HTTP as JSON, for a server without binary tensors."""
    return Door("HTTP", f"http://{address}/v2/models/{NAME}/infer", _oip_json, _oip_http_scores)


def amiss_v1(address: str) -> Door:
    """Amiss's own typed door, with the whole verdict in the answer."""
    return Door("gRPC amiss.v1", f"http://{address}{V1_SCORE}", _v1_message, _v1_scores)


def torchserve_grpc(address: str) -> Door:
    """TorchServe's Predictions, its input named `body`."""
    return Door("gRPC", f"http://{address}{TORCHSERVE_PREDICT}", _prediction, _prediction_scores)


def torchserve_http(address: str) -> Door:
    """TorchServe's /predictions with the raw pixels as body."""
    return Door("HTTP", f"http://{address}/predictions/{NAME}", _raw, _json_scores)


def litserve_http(address: str) -> Door:
    """LitServe's /predict; it reads JSON, so the pixels travel as base64."""
    return Door("HTTP", f"http://{address}/predict", _base64, _json_scores)


def frame(message: bytes) -> bytes:
    """A gRPC frame: not compressed, four bytes of length, the message."""
    return struct.pack(">BI", 0, len(message)) + message


def _ask_grpc(door: Door, request: Request) -> Answer:
    parts = urlsplit(door.url)
    with grpc.insecure_channel(parts.netloc) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(parts.path)
        message = request.body[len(frame(b"")) :]
        return Answer({}, call(message, timeout=ASK_LIMIT_S, wait_for_ready=True))


def _ask_http(door: Door, request: Request) -> Answer:
    post = urllib.request.Request(  # noqa: S310  our own loopback
        door.url, data=request.body, headers=dict(request.headers), method="POST"
    )
    with urllib.request.urlopen(post, timeout=ASK_LIMIT_S) as answer:  # noqa: S310
        return Answer({key.lower(): value for key, value in answer.headers.items()}, answer.read())


def _grpc_request(message: bytes) -> Request:
    return Request({"content-type": "application/grpc", "te": "trailers"}, frame(message))


def _oip_message(x: Inputs, *, name: str) -> Request:
    request = oip.ModelInferRequest(model_name=name, raw_input_contents=[x.tobytes()])
    tensor, datatype = TENSORS[x.dtype.name]
    request.inputs.add(name=tensor, datatype=datatype, shape=x.shape)
    request.outputs.add(name="score")
    return _grpc_request(request.SerializeToString())


def _oip_scores(answer: Answer) -> NDArray[np.floating]:
    response = oip.ModelInferResponse.FromString(answer.body)
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], dtype="<f4")
    return np.asarray(response.outputs[0].contents.fp32_contents, dtype=np.float32)


def _oip_binary(x: Images) -> Request:
    pixels = x.tobytes()
    tensor = {"name": "images", "datatype": "UINT8", "shape": x.shape}
    header = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(pixels)}}],
        "outputs": [{"name": "score", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(header).encode()
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return Request(headers, text + pixels)


def _oip_json(x: Images) -> Request:
    tensor = {"name": "images", "datatype": "UINT8", "shape": x.shape, "data": x.ravel().tolist()}
    body = {"inputs": [tensor], "outputs": [{"name": "score"}]}
    return Request({"content-type": "application/json"}, json.dumps(body).encode())


def _oip_http_scores(answer: Answer) -> NDArray[np.floating]:
    length = answer.headers.get(HEADER_LENGTH.lower())
    if length is None:
        (output,) = json.loads(answer.body)["outputs"]
        return np.asarray(output["data"], dtype=np.float32)
    return np.frombuffer(answer.body[int(length) :], dtype="<f4")


def _v1_message(x: Images) -> Request:
    tensor = v1.Tensor(data_type=v1.DATA_TYPE_UINT8, shape=x.shape, data=x.tobytes())
    request = v1.ScoreRequest(detector=NAME, tensor=tensor)
    return _grpc_request(request.SerializeToString())


def _v1_scores(answer: Answer) -> NDArray[np.floating]:
    return np.asarray(v1.ScoreResponse.FromString(answer.body).scores, dtype=np.float32)


def _prediction(x: Images) -> Request:
    """PredictionsRequest: 1 model_name, 3 map input. TorchServe ships no Python stubs of it."""
    entry = _field(1, b"body") + _field(2, x.tobytes())
    return _grpc_request(_field(1, NAME.encode()) + _field(3, entry))


def _prediction_scores(answer: Answer) -> NDArray[np.floating]:
    """PredictionResponse holds nothing but field 1, the handler's JSON."""
    return np.asarray(json.loads(answer.body[answer.body.index(b"[") :]), dtype=np.float32)


def _raw(x: Images) -> Request:
    return Request({"content-type": "application/octet-stream"}, x.tobytes())


def _base64(x: Images) -> Request:
    body = json.dumps({"pixels": base64.b64encode(x.tobytes()).decode()}).encode()
    return Request({"content-type": "application/json"}, body)


def _json_scores(answer: Answer) -> NDArray[np.floating]:
    return np.asarray(json.loads(answer.body), dtype=np.float32)


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, least first, the high bit set on all but the last."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)  # noqa: RUF100
