"""Bodies of POST .../infer: whatever arrives is rows or bad input."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amiss_export.bundle import Column, TableInput
from amiss_export.errors import AmissError, BadInput
from amiss_serving.inputs import Limits
from amiss_serving.oip_http_body import json_length, read_infer
from amiss_serving.oip_signature import BY_DEFAULT

COLUMNS = tuple(
    Column.model_validate({"name": name, "kind": "number", "dtype": "float32"}) for name in "ab"
)
TABLE = TableInput(columns=COLUMNS, source_columns=("a", "b"), label_column=None)
LIMITS = Limits(max_rows=10, max_bytes=1000, max_pixels=1)
NAMES = st.sampled_from(["rows", "score", "FP32", "UINT8", ""]) | st.text(max_size=3)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {"name": NAMES, "datatype": NAMES, "shape": st.lists(st.integers(-2, 2**63), max_size=4)},
    optional={
        "data": ANYTHING,
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers() | ANYTHING),
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=2)},
    optional={"id": NAMES, "parameters": ANYTHING, "outputs": ANYTHING},
)


@given(REQUEST | ANYTHING, st.binary(max_size=16), st.none() | st.integers(-1, 200).map(str))
def test_every_body_is_rows_or_one_of_our_errors(
    message: object, tail: bytes, header: str | None
) -> None:
    """No JSON, header or tail brings anything but rows of the detector or one of our errors."""
    body = json.dumps(message).encode() + tail
    try:
        x = read_infer(body, json_length(header, len(body))).decode(TABLE, LIMITS).x
    except AmissError:
        return
    assert (x.dtype, x.shape[1], x.ndim) == (np.float32, 2, 2)


def test_a_body_without_json_asks_for_everything_in_binary() -> None:
    """The header says zero: all five outputs, all as bytes, rows by the body's size."""
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    asked = read_infer(x.tobytes(), 0)
    assert (asked.outputs, asked.binary) == (BY_DEFAULT, frozenset(BY_DEFAULT))
    np.testing.assert_array_equal(asked.decode(TABLE, LIMITS).x, x)


def test_each_output_may_differ_from_what_is_said_of_all() -> None:
    """binary_data of an output wins over binary_data_output of the request."""
    outputs = [{"name": "score", "parameters": {"binary_data": False}}, {"name": "p_value"}]
    message = {"inputs": [], "outputs": outputs, "parameters": {"binary_data_output": True}}
    asked = read_infer(json.dumps(message).encode(), None)
    assert (asked.outputs, asked.binary) == (("score", "p_value"), frozenset({"p_value"}))


def test_a_size_that_is_no_number_is_bad_input() -> None:
    """`binary_data_size` as text is refused like a wrong one."""
    tensor = {"name": "rows", "datatype": "FP32", "shape": [1, 2]}
    message = {"inputs": [{**tensor, "parameters": {"binary_data_size": "8"}}]}
    body = json.dumps(message).encode()
    with pytest.raises(BadInput, match="bytes behind the JSON"):
        read_infer(body + b"12345678", len(body)).decode(TABLE, LIMITS)
