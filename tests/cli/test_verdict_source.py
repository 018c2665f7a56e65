"""Who answers `amiss score`: how a service is asked, and waited for."""

from typing import Any

import numpy as np
import pytest

from amiss_cli.verdict_source import MOST_PATIENCE_S, ServiceSource, input_of
from amiss_client import (
    ColumnSpec,
    DetectorInfo,
    DetectorNotFound,
    ImageSpec,
    InvalidInput,
    Overloaded,
    Scores,
    ServerError,
    TableSpec,
)
from amiss_export.bundle import Column, ImageInput, TableInput
from amiss_export.errors import AmissError, BadInput, BundleNotFound

SPEC = TableSpec((ColumnSpec("x", "number"),))
ONE = np.ones(1, dtype=np.float32)


class FakeClient:
    """A client that raises the errors it was given, then answers one row."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[tuple[str, str, Any]] = []

    def get_detector(self, name: str, version: str) -> DetectorInfo:
        """Version 4, whatever the label."""
        self.asked.append(("get_detector", name, version))
        return DetectorInfo(name, 4, "vae", "elbo", (), SPEC, 1.0, 0.05, "marginal", 200, None)

    def score_table(self, name: str, _table: Any, *, version: int, **_: float) -> Scores:
        """One verdict, once the errors are used up."""
        self.asked.append(("score_table", name, version))
        if self.errors:
            raise self.errors.pop(0)
        return Scores(name, version, 1.0, 0.05, ONE, ONE, ONE, ONE > 2)


def source(
    client: FakeClient, reference: str = "table@canary"
) -> tuple[ServiceSource, list[float]]:
    """A source on the fake client, and the seconds it sleeps."""
    slept: list[float] = []
    return ServiceSource(client, "table@canary", sleep=slept.append), slept  # type: ignore[arg-type]


def overloaded(retry_after_s: float | None) -> Overloaded:
    """The client's error for a full queue."""
    error = Overloaded("queue full", code="RESOURCE_EXHAUSTED", request_id="abc")
    error.retry_after_s = retry_after_s
    return error


def test_rows_go_to_the_version_the_label_meant_at_the_start() -> None:
    """The label is resolved once; rows are scored by the number it meant."""
    client = FakeClient()
    service, _ = source(client)
    service.score({"x": ONE})
    service.score({"x": ONE})
    assert client.asked == [
        ("get_detector", "table", "canary"),
        ("score_table", "table", 4),
        ("score_table", "table", 4),
    ]


def test_a_full_queue_is_waited_for() -> None:
    """Overloaded costs the pause the service asks for, one second when it names none."""
    service, slept = source(FakeClient(overloaded(0.5), overloaded(None)))
    assert service.score({"x": ONE}).score.tolist() == [1.0]
    assert slept == [0.5, 1.0]


def test_patience_ends() -> None:
    """A service that stays overloaded fails the run after MOST_PATIENCE_S of pauses."""
    service, slept = source(FakeClient(*[overloaded(50.0)] * 9))
    with pytest.raises(AmissError, match="overloaded for 100 s"):
        service.score({"x": ONE})
    assert sum(slept) <= MOST_PATIENCE_S


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidInput("no", request_id="abc"), BadInput),
        (DetectorNotFound("no", request_id="abc"), BundleNotFound),
        (ServerError("no", request_id="abc"), AmissError),
    ],
)
def test_client_errors_become_ours(error: Exception, kind: type[AmissError]) -> None:
    """Each error of the client becomes the one whose exit code fits, with the request id."""
    service, _ = source(FakeClient(error))
    with pytest.raises(AmissError, match=r"no \(request id abc\)") as caught:
        service.score({"x": ONE})
    assert type(caught.value) is kind


def test_the_wire_tells_what_reading_a_file_needs() -> None:
    """Columns, categories, missing policy, file order and label survive the way back."""
    spec = TableSpec(
        columns=(
            ColumnSpec("x", "number", "mm", (), accepts_missing=False),
            ColumnSpec("c", "category", "", ("a", "b"), accepts_missing=True),
        ),
        source_columns=("x", "c", "label"),
        label_column="label",
    )
    info = DetectorInfo("t", 1, "vae", "elbo", (), spec, 1.0, 0.05, "marginal", 9, None)
    assert input_of(info) == TableInput(
        columns=(
            Column(name="x", kind="number", dtype="float64", unit="mm", missing="refuse"),
            Column(name="c", kind="category", dtype="str", categories=("a", "b")),
        ),
        source_columns=("x", "c", "label"),
        label_column="label",
    )
    image = DetectorInfo(
        "i", 1, "vae", "elbo", (), ImageSpec(3, 8, 9), 1.0, 0.05, "marginal", 9, None
    )
    assert input_of(image) == ImageInput(channels=3, height=8, width=9)
