"""One request of TorchServe's: what was sent becomes rows, and how its answer is written.

People send what the HTTP door takes, JSON with records or rows, or pictures, and get its JSON. Our
own front (`amiss serve --runtime torchserve`) sends a tensor and gets the bytes of the outputs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.errors import BadInput
from amiss_serving.detector import RECONSTRUCTION, SCORE
from amiss_serving.http_messages import json_decoder, score_answer
from amiss_serving.inputs import Decoded, Limits, Spec, from_images, from_tensor, tensor_from_bytes
from amiss_serving.service import Answer

Fields = Mapping[str, bytes]  # contents by name, in the order sent
TENSOR, SHAPE, OUTPUTS = "tensor", "shape", "outputs"
BODIES = ("body", "data")  # TorchServe's names for a request that is one thing and no form
JSON, BYTES = "application/json", "application/octet-stream"
_WITH_RECONSTRUCTION = {SCORE: False, f"{SCORE},{RECONSTRUCTION}": True}  # by text of `outputs`


class Asked(msgspec.Struct, frozen=True):
    """Rows to score, whether with the reconstruction, and what writes the answer."""

    rows: Decoded
    reconstruct: bool
    write: Callable[[Answer], bytes]
    content_type: str


def read_request(fields: Fields, spec: Spec, limits: Limits) -> Asked:
    """What one request asks for. Raises BadInput and TooLarge."""
    if TENSOR in fields:
        tensor = tensor_from_bytes(fields[TENSOR], _dtype(spec), _shape(fields))
        return Asked(from_tensor(tensor, spec, limits), _outputs(fields), as_bytes, BYTES)
    reconstruct = _flag(fields)
    sent = {name: value for name, value in fields.items() if name != RECONSTRUCTION}
    decode = _table if isinstance(spec, TableInput) else _images
    return Asked(decode(sent, spec, limits), reconstruct, score_answer, JSON)


def as_bytes(answer: Answer) -> bytes:
    """Little-endian float32: the scores (n,), then the reconstruction (n, ...) when asked for."""
    outputs = (answer.scored.verdicts.score, answer.scored.reconstruction)
    return b"".join(_little_endian(values) for values in outputs if values is not None)


def _table(sent: Fields, spec: Spec, limits: Limits) -> Decoded:
    """Rows of a JSON body."""
    if len(sent) != 1 or not set(sent) <= set(BODIES):
        raise BadInput(
            "expected records or rows as a JSON body, content type application/json, got "
            f"{len(sent)} field(s) {[f'{name:.40}' for name in list(sent)[:8]]}"
        )
    return json_decoder(next(iter(sent.values())))(spec, limits)


def _images(sent: Fields, spec: Spec, limits: Limits) -> Decoded:
    """Pictures: the body, or one under each name of a form."""
    return from_images(list(sent.values()), spec, limits)


def _dtype(spec: Spec) -> str:
    return "<u1" if isinstance(spec, ImageInput) else "<f4"


def _shape(fields: Fields) -> list[int]:
    text = bytes(fields.get(SHAPE, b"")).decode(errors="replace")
    lengths = text.split(",")
    if not all(length.isascii() and length.isdecimal() for length in lengths):
        raise BadInput(f"expected {SHAPE!r} as lengths, e.g. 2,30, got {text!r:.80}")
    return [int(length) for length in lengths]


def _outputs(fields: Fields) -> bool:
    """Whether the reconstruction is asked for, of a tensor."""
    text = bytes(fields.get(OUTPUTS, SCORE.encode())).decode(errors="replace")
    if text not in _WITH_RECONSTRUCTION:
        known = " or ".join(map(repr, _WITH_RECONSTRUCTION))
        raise BadInput(f"expected {OUTPUTS!r} {known}, got {text!r:.80}")
    return _WITH_RECONSTRUCTION[text]


def _flag(fields: Fields) -> bool:
    """Whether the reconstruction is asked for, by the parameter of that name."""
    text = bytes(fields.get(RECONSTRUCTION, b"false")).decode(errors="replace")
    try:
        return msgspec.convert(text.lower(), bool, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"expected {RECONSTRUCTION!r} true or false, got {text!r:.80}") from error


def _little_endian(values: NDArray[Any]) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()
