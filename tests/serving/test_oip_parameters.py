"""Which parameters count, which are refused, which are ignored."""

import pytest

from amiss_export.errors import BadInput
from amiss_serving.oip_parameters import (
    REQUEST_REFUSED,
    TENSOR_REFUSED,
    Value,
    check_load_parameters,
    check_parameters,
    timeout_of,
)


@pytest.mark.parametrize("refused", [REQUEST_REFUSED, TENSOR_REFUSED])
def test_what_would_change_the_answer_is_refused_by_name(refused: dict[str, str]) -> None:
    """Each is refused when it is set; its zero, and names nobody knows, are not."""
    for name in refused:
        with pytest.raises(BadInput, match=f"'{name}' is not supported"):
            check_parameters({name: 1}, refused)
        check_parameters({name: 0, "priority": 2, "my_own": "x"}, refused)


def test_the_timeout_is_in_microseconds() -> None:
    """Half a million are half a second; zero and nothing set no bound."""
    assert timeout_of({"timeout": 500_000}) == 0.5
    assert timeout_of({"timeout": 0}) is None
    assert timeout_of({}) is None


@pytest.mark.parametrize("timeout", [-1, 1.5, "1", True])
def test_a_timeout_that_is_no_count_is_refused(timeout: Value) -> None:
    """Negative, broken, text and boolean values say what was expected."""
    with pytest.raises(BadInput, match="microseconds >= 0"):
        timeout_of({"timeout": timeout})


def test_a_load_takes_no_parameters() -> None:
    """The first is named; none is fine."""
    check_load_parameters([])
    with pytest.raises(BadInput, match="'file:1/x'"):
        check_load_parameters(["file:1/x"])
