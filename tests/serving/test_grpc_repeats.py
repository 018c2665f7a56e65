"""Requests read by their likeness to earlier ones ask for what they would ask for read in full."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amiss.oip import open_inference_pb2 as oip
from amiss.v1 import scoring_pb2 as pb
from amiss_export.bundle import ImageInput
from amiss_export.errors import BadInput
from amiss_serving import oip_grpc
from amiss_serving.grpc_repeats import Repeats
from amiss_serving.grpc_server import RPCS_THAT_SCORE
from amiss_serving.inputs import Limits
from amiss_serving.service import Ask

LIMITS = Limits(max_rows=100, max_bytes=100_000, max_pixels=1000)
SPEC = ImageInput(channels=1, height=2, width=3)


def fresh(method: str) -> Repeats[Any, Any]:
    """What reads the RPC's requests, having read none."""
    known = {**RPCS_THAT_SCORE, **oip_grpc.SCORING}[method].requests
    return Repeats(known._kind, known._ask, known._payload, known._form)


def infer(x: np.ndarray, *, name: str = "images", **fields: Any) -> bytes:
    """ModelInfer's request for uint8 images, serialised."""
    tensor = oip.ModelInferRequest.InferInputTensor(name=name, datatype="UINT8", shape=x.shape)
    raw = [x.tobytes()]
    given = {"model_name": "m", "inputs": [tensor], "raw_input_contents": raw} | fields
    return oip.ModelInferRequest(**given).SerializeToString()


def score(x: np.ndarray, **fields: Any) -> bytes:
    """Score's request for uint8 images, serialised."""
    tensor = pb.Tensor(data_type=pb.DATA_TYPE_UINT8, shape=x.shape, data=x.tobytes())
    return pb.ScoreRequest(detector="m", tensor=tensor, **fields).SerializeToString()


def images(seed: int, n: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 2, 3), dtype=np.uint8)


def summary(ask: Ask) -> tuple[object, ...]:
    return ask.name, ask.version, ask.size_bytes, ask.timeout_s, ask.reconstruct


@pytest.mark.parametrize(("method", "encode"), [("ModelInfer", infer), ("Score", score)])
def test_later_requests_have_their_own_elements(method: str, encode: Any) -> None:
    """Ten alike, of which all but the first are read without protobuf, decode to their own rows."""
    repeats = fresh(method)
    in_full = 0
    for seed in range(10):
        data = encode(images(seed))
        ask, _ = repeats.read(data)
        x = ask.decode(SPEC, LIMITS).x
        np.testing.assert_array_equal(x, images(seed))
        assert x.dtype == np.uint8
        assert summary(ask) == summary(repeats._ask(repeats._kind.FromString(data)))
        in_full += not repeats._known
    assert in_full == 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["plain", "id", "outputs", "timeout", "version", "twice", "typed"]),
            st.integers(0, 3),
            st.integers(1, 2),
        ),
        max_size=25,
    )
)
def test_whatever_came_before_a_request_is_read_as_if_it_were_the_first(
    requests: list[tuple[str, int, int]],
) -> None:
    """Mixed with others of the same length, each asks for the same as when read alone."""
    repeats = fresh("ModelInfer")
    for kind, seed, n in requests:
        x = images(seed, n)
        fields: dict[str, dict[str, Any]] = {
            "plain": {},
            "id": {"id": f"r{seed}"},
            "outputs": {"outputs": [{"name": "reconstruction" if seed else "score"}]},
            "timeout": {"parameters": {"timeout": oip.InferParameter(int64_param=seed + 1)}},
            "version": {"model_version": str(seed)},
            "twice": {"raw_input_contents": [x.tobytes(), x.tobytes()]},
            "typed": {
                "inputs": [
                    {
                        "name": "images",
                        "datatype": "UINT8",
                        "shape": x.shape,
                        "contents": {"uint_contents": x.ravel().tolist()},
                    }
                ],
                "raw_input_contents": [],
            },
        }
        data = infer(x, **fields[kind])
        ask, form = repeats.read(data)
        alone, alone_form = fresh("ModelInfer").read(data)
        assert summary(ask) == summary(alone)
        assert form == alone_form
        if kind == "twice":
            with pytest.raises(BadInput):
                ask.decode(SPEC, LIMITS)
        else:
            np.testing.assert_array_equal(ask.decode(SPEC, LIMITS).x, x)


def test_a_request_that_was_wrong_for_one_detector_is_checked_for_the_next() -> None:
    """What fits is learned for each detector on its own, errors never."""
    repeats = fresh("ModelInfer")
    other = ImageInput(channels=1, height=3, width=2)
    for seed in range(4):
        ask, _ = repeats.read(infer(images(seed)))
        np.testing.assert_array_equal(ask.decode(SPEC, LIMITS).x, images(seed))
        with pytest.raises(BadInput, match="expected one input"):
            ask.decode(other, LIMITS)


def test_what_only_looks_like_the_elements_is_not_taken_for_them() -> None:
    """Fields may come in any order: here the id is last, and ends as the tensor does."""
    repeats = fresh("ModelInfer")
    x = images(1) % 128
    data = infer(x) + oip.ModelInferRequest(id=x.tobytes().decode()).SerializeToString()
    assert data.endswith(x.tobytes())
    for _ in range(4):
        repeats.read(data)
    other = data[: -x.nbytes] + bytes(x.nbytes)
    ask, form = repeats.read(other)
    np.testing.assert_array_equal(ask.decode(SPEC, LIMITS).x, x)
    assert form.request_id == "\0" * x.nbytes


def test_what_is_kept_is_bounded() -> None:
    """Neither elements nor long beginnings are kept, nor more than so many of either."""
    repeats = fresh("ModelInfer")
    for seed in range(3):
        repeats.read(infer(images(seed), model_name="m" * 2000))
    assert not repeats._seen
    for length in range(1, 400):
        for seed in range(3):
            repeats.read(infer(images(seed), model_name="m" * length))
    for number in range(1000, 1100):
        repeats.read(infer(images(1), id=str(number)))
    assert len(repeats._known) <= 256
    assert max(map(len, repeats._seen.values())) <= 8
    data = infer(images(7))
    for _ in range(3):
        repeats.read(data)
    (known,) = repeats._known[len(data)]
    with pytest.raises(RuntimeError, match="an earlier one"):
        known._ask.decode(SPEC, LIMITS)


def test_what_is_no_message_is_bad_input() -> None:
    """The error names the message and the length of what arrived."""
    with pytest.raises(BadInput, match=r"ModelInferRequest, got 3 bytes"):
        fresh("ModelInfer").read(b"\xff\xff\xff")
