"""Each door has one table, and they agree."""

import inspect
from pathlib import Path

import pytest

from amiss_export.errors import AmissError, BadInput
from amiss_serving import errors, grpc_door, http_door


def test_both_doors_know_every_error() -> None:
    """Both tables hold each error of this room, bad input and the general one; the README too."""
    ours = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, AmissError)
    } | {BadInput}
    assert set(http_door.STATUS) == set(grpc_door.STATUS) == ours
    readme = (Path(__file__).parents[2] / "serving" / "README.md").read_text()
    for kind in ours:
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{kind.__name__}`"))
        assert f"| {http_door.STATUS[kind]}" in row
        assert f"| {grpc_door.STATUS[kind].name} |" in row


@pytest.mark.parametrize("kind", http_door.STATUS)
def test_errors_know_no_transport(kind: type[AmissError]) -> None:
    """An error is made of its message alone."""
    assert str(kind("what was expected")) == "what was expected"
    assert not {"status", "code", "headers"} & set(vars(kind))
