"""Between the messages of ModelInfer and what the service works with. Translation only."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from amiss.oip import open_inference_pb2 as pb
from amiss_export.errors import BadInput
from amiss_serving.inputs import Decoded, Limits, Spec, from_tensor
from amiss_serving.oip_parameters import (
    NONE,
    REQUEST_REFUSED,
    TENSOR_REFUSED,
    Value,
    check_parameters,
)
from amiss_serving.oip_signature import (
    DATATYPES,
    RECONSTRUCTION,
    THRESHOLD,
    checked_outputs,
    input_of,
    values_of,
)
from amiss_serving.oip_tensors import from_raw, from_typed, to_typed
from amiss_serving.service import Answer

_ELEMENT_BYTES = 4
_Parameters = Mapping[str, pb.InferParameter]


def parameters_of(request: pb.ModelInferRequest) -> Mapping[str, Value]:
    """The request's parameters. Raises BadInput for one that is refused, its tensors' included."""
    for parameters in [tensor.parameters for tensor in request.inputs] + [
        output.parameters for output in request.outputs
    ]:
        if parameters:
            check_parameters(_values(parameters), TENSOR_REFUSED)
    if not request.parameters:
        return NONE
    values = _values(request.parameters)
    check_parameters(values, REQUEST_REFUSED)
    return values


def asked_outputs(request: pb.ModelInferRequest) -> tuple[str, ...]:
    """The outputs asked for. Raises BadInput naming one that there is not."""
    return checked_outputs(tuple([output.name for output in request.outputs]))


def is_raw(request: pb.ModelInferRequest) -> bool:
    """Whether the elements are raw bytes; then those of the response are, too."""
    return len(request.raw_input_contents) > 0


def size_bytes(request: pb.ModelInferRequest) -> int:
    """How much work the request is to decode: typed elements are copied, raw ones are not."""
    if request.raw_input_contents:
        return 0
    contents = (tensor.contents for tensor in request.inputs if tensor.HasField("contents"))
    return sum(_ELEMENT_BYTES * (len(c.fp32_contents) + len(c.uint_contents)) for c in contents)


def decoder(request: pb.ModelInferRequest) -> Callable[[Spec, Limits], Decoded]:
    """What makes rows of the request."""

    def decode(spec: Spec, limits: Limits) -> Decoded:
        expected = input_of(spec)
        if len(request.inputs) != 1:
            names = [tensor.name[:80] for tensor in request.inputs[:8]]
            raise BadInput(f"expected one input {expected.name!r}, got {names or 'none'}")
        tensor, raw = request.inputs[0], request.raw_input_contents
        shape = tuple(tensor.shape)
        expected.check(tensor.name, tensor.datatype, shape)
        if not raw:
            return from_tensor(from_typed(tensor.contents, expected.datatype, shape), spec, limits)
        if len(raw) != 1 or tensor.HasField("contents"):
            raise BadInput(
                "expected the elements once, in raw_input_contents or in the input's contents, got "
                f"{len(raw)} raw and {int(tensor.HasField('contents'))} typed"
            )
        return from_tensor(from_raw(raw[0], expected.datatype, shape), spec, limits)

    return decode


def infer_response(
    answer: Answer, outputs: tuple[str, ...], *, request_id: str, raw: bool
) -> pb.ModelInferResponse:
    """The outputs asked for, raw or typed as the request was."""
    detector, values = answer.detector, values_of(answer, outputs)
    reconstruction = answer.scored.reconstruction
    lengths = () if reconstruction is None else reconstruction.shape[1:]
    rows = len(answer.scored.verdicts.score)
    response = pb.ModelInferResponse(id=request_id)
    response.MergeFrom(_head(detector.name, detector.version, outputs, rows, lengths))
    if raw:
        response.raw_output_contents.extend([value.tobytes() for value in values])
        return response
    for output, value in zip(response.outputs, values, strict=True):
        output.contents.CopyFrom(to_typed(value, output.datatype))
    return response


def infer_response_bytes(
    answer: Answer, outputs: tuple[str, ...], *, request_id: str, raw: bool
) -> bytes:
    """`infer_response`, serialised. Raw outputs are put behind a head made once: half the time.

    On the wire a message is the sequence of its fields, in any order (protobuf's encoding).
    """
    if not raw:
        return infer_response(answer, outputs, request_id=request_id, raw=raw).SerializeToString()
    reconstruction = answer.scored.reconstruction
    lengths = () if reconstruction is None else reconstruction.shape[1:]
    rows, detector = len(answer.scored.verdicts.score), answer.detector
    parts = [_head_bytes(detector.name, detector.version, outputs, rows, lengths)]
    if request_id:
        data = request_id.encode()
        parts += _ID, _varint(len(data)), data
    for value in values_of(answer, outputs):
        parts += _raw_head(value.nbytes), value.tobytes()
    return b"".join(parts)


def _tag(field: str) -> bytes:
    number: int = pb.ModelInferResponse.DESCRIPTOR.fields_by_name[field].number
    return bytes([number << 3 | _LENGTH_DELIMITED])


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


@lru_cache(maxsize=1024)
def _raw_head(nbytes: int) -> bytes:
    return _RAW_OUTPUT + _varint(nbytes)


_LENGTH_DELIMITED = 2
_ID, _RAW_OUTPUT = _tag("id"), _tag("raw_output_contents")


@lru_cache(maxsize=1024)
def _head_bytes(
    name: str, version: int, outputs: tuple[str, ...], rows: int, lengths: tuple[int, ...]
) -> bytes:
    return _head(name, version, outputs, rows, lengths).SerializeToString()


@lru_cache(maxsize=1024)
def _head(
    name: str, version: int, outputs: tuple[str, ...], rows: int, lengths: tuple[int, ...]
) -> pb.ModelInferResponse:
    """What every response with so many rows begins with: most of the work of making one."""
    shapes = {THRESHOLD: (1,), RECONSTRUCTION: (rows, *lengths)}
    return pb.ModelInferResponse(
        model_name=name,
        model_version=str(version),
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=output, datatype=DATATYPES[output], shape=shapes.get(output, (rows,))
            )
            for output in outputs
        ],
    )


def _values(parameters: _Parameters) -> dict[str, Value]:
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], kind) for name, kind in kinds.items() if kind}
