"""Elements of tensors: raw, typed and JSON, there and back, and what is refused."""

import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from amiss.oip import open_inference_pb2 as pb
from amiss_export.errors import BadInput
from amiss_serving.oip_tensors import from_json, from_raw, from_typed, to_typed

SHAPES = npst.array_shapes(min_dims=1, max_dims=4, max_side=3)
TENSORS = st.one_of(
    npst.arrays(np.uint8, SHAPES).map(lambda x: ("UINT8", x)),
    npst.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_infinity=False)).map(
        lambda x: ("FP32", x)
    ),
)


@given(TENSORS)
def test_every_form_gives_the_tensor_back(tensor: tuple[str, Any]) -> None:
    """Raw (askew, too), typed, nested and flat JSON of a tensor are one tensor; null is NaN."""
    datatype, x = tensor
    forms = (
        from_raw(x.tobytes(), datatype, x.shape),
        from_raw(memoryview(b"{" + x.tobytes())[1:], datatype, x.shape),
        from_typed(to_typed(x, datatype), datatype, x.shape),
        from_json(msgspec.json.encode(x.tolist()), datatype, x.shape),
        from_json(msgspec.json.encode(x.ravel().tolist()), datatype, x.shape),
    )
    for form in forms:
        assert (form.dtype, form.flags.aligned) == (x.dtype, True)
        np.testing.assert_array_equal(form, x)


def test_bools_go_into_their_own_field() -> None:
    """True and false become bool_contents, row by row."""
    assert list(to_typed(np.array([True, False]), "BOOL").bool_contents) == [True, False]


@pytest.mark.parametrize(
    ("contents", "datatype", "message"),
    [
        (pb.InferTensorContents(fp32_contents=[1]), "UINT8", "uint_contents, got fp32_contents"),
        (pb.InferTensorContents(uint_contents=[256]), "UINT8", "between 0 and 255, got 256"),
        (pb.InferTensorContents(fp32_contents=[1]), "FP32", "holds 2 elements, got 1"),
        (pb.InferTensorContents(), "FP32", "holds 2 elements, got 0"),
        (
            pb.InferTensorContents(fp32_contents=[1, 2], bytes_contents=[b"x"]),
            "FP32",
            "got bytes_contents",
        ),
    ],
)
def test_typed_elements_lie_in_the_field_of_their_type(
    contents: pb.InferTensorContents, datatype: str, message: str
) -> None:
    """Another field, a number that does not fit, or too few are refused."""
    with pytest.raises(BadInput, match=re.escape(message)):
        from_typed(contents, datatype, (1, 2))


@pytest.mark.parametrize(
    ("data", "datatype", "message"),
    [
        ("[1.5, 2]", "UINT8", "Expected `int`, got `float`"),
        ("[256, 2]", "UINT8", "<= 255"),
        ("[true, 2]", "UINT8", "Expected `int`"),
        ("[null, 2]", "UINT8", "Expected `int`"),
        ('["1", 2]', "FP32", "got `str`"),
        ("[1]", "FP32", "holds 2 elements, got 1"),
        ("[[1], [2]]", "FP32", "shape [1, 2], got [2, 1]"),
        ("[[1, 2], [3]]", "FP32", "expected 'data' of FP32"),
        ("[[[1, 2]]]", "FP32", "got 3 deep"),
        ("1", "FP32", "got 0 deep"),
        ("[1, 2", "FP32", "expected 'data' of FP32"),
        ("[" * 100_000, "FP32", "deep"),
    ],
)
def test_json_that_is_not_the_tensor_is_refused(data: str, datatype: str, message: str) -> None:
    """Another type, range, length, shape or depth is bad input, never cut to fit."""
    with pytest.raises(BadInput, match=re.escape(message)):
        from_json(data.encode(), datatype, (1, 2))


def test_a_number_too_large_for_float32_becomes_infinite() -> None:
    """It is not wrapped or cut: the check for finite numbers sees it."""
    assert np.isinf(from_json(b"[1e39, 0]", "FP32", (1, 2))[0, 0])
