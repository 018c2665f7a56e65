"""What a detector takes and gives, in the protocol's terms."""

import pytest

from amiss_export.bundle import Column, ImageInput, TableInput
from amiss_export.errors import BadInput
from amiss_serving.oip_signature import BY_DEFAULT, Tensor, checked_outputs, input_of, outputs_of

COLUMNS = tuple(
    Column.model_validate({"name": name, "kind": "number", "dtype": "float32"}) for name in "ab"
)
TABLE = TableInput(columns=COLUMNS, source_columns=("a", "b"), label_column=None)
IMAGE = ImageInput.model_validate({"channels": 3, "height": 4, "width": 5})


def test_an_image_is_uint8_and_a_table_fp32() -> None:
    """One input of any number of rows; the reconstruction has its shape, the threshold is one."""
    assert input_of(IMAGE) == Tensor("images", "UINT8", (-1, 3, 4, 5))
    assert input_of(TABLE) == Tensor("rows", "FP32", (-1, 2))
    shapes = {tensor.name: tensor.shape for tensor in outputs_of(IMAGE)}
    assert shapes.pop("reconstruction") == (-1, 3, 4, 5)
    assert shapes.pop("threshold") == (1,)
    assert set(shapes.values()) == {(-1,)}


@pytest.mark.parametrize(
    ("name", "datatype", "shape"),
    [
        ("x", "FP32", (1, 2)),
        ("rows", "FP64", (1, 2)),
        ("rows", "FP32", (1, 3)),
        ("rows", "FP32", (1, 2, 1)),
        ("rows", "FP32", (0, 2)),
        ("rows", "FP32", (-1, 2)),
        ("rows", "FP32", ()),
    ],
)
def test_what_is_not_the_input_is_refused(name: str, datatype: str, shape: tuple[int, ...]) -> None:
    """Name, type, lengths and at least one row must fit; the error says both sides."""
    with pytest.raises(BadInput, match=r"expected one input 'rows' FP32 \[-1, 2\].*, got '"):
        input_of(TABLE).check(name, datatype, shape)
    input_of(TABLE).check("rows", "FP32", (7, 2))


def test_outputs_are_those_named_or_all_but_the_reconstruction() -> None:
    """In the order asked for; unknown and repeated names are refused."""
    assert checked_outputs(()) == BY_DEFAULT
    assert "reconstruction" not in BY_DEFAULT
    assert checked_outputs(("reconstruction", "score")) == ("reconstruction", "score")
    for names in (["x"], ["score", "score"]):
        with pytest.raises(BadInput):
            checked_outputs(tuple(names))
