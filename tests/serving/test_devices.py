"""Which device is picked, whatever machine the test runs on."""

import pytest

from amiss_export.errors import BadInput
from amiss_serving.devices import pick_device


@pytest.mark.parametrize(
    ("asked", "there", "works", "said"),
    [
        ("auto", 0, True, "device cpu (no CUDA device)"),
        ("auto", 1, True, "device cuda:0"),
        ("auto", 1, False, "device cpu (a CUDA device, but the runtime cannot use it)"),
        ("cpu", 1, True, "device cpu"),
        ("cuda:1", 2, True, "device cuda:1"),
    ],
)
def test_the_device_and_its_reason(asked: str, there: int, works: bool, said: str) -> None:
    """auto takes a device only if it works; what was named is taken if it is there."""
    assert str(pick_device(asked, there=lambda: there, works=lambda: works)) == said


def test_a_device_that_is_not_there_is_an_error() -> None:
    """cuda:1 with one device is refused, saying how many there are."""
    with pytest.raises(BadInput, match="'cuda:1' asked for, but there are 1 CUDA devices"):
        pick_device("cuda:1", there=lambda: 1, works=lambda: True)
