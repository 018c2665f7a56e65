"""Who answers `amiss score`: a bundle on this machine, or a service."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from amiss_client import (
    AmissClientError,
    Client,
    DetectorInfo,
    DetectorNotFound,
    ImageSpec,
    InvalidInput,
    LoadFailed,
    Overloaded,
    Scores,
    TableSpec,
)
from amiss_export.bundle import Column, ImageInput, TableInput, resolve_version, split_reference
from amiss_export.errors import AmissError, BadInput, BundleNotFound, BundleRefused

Rows = Mapping[str, NDArray[Any]] | NDArray[np.uint8]  # columns by name, or images (n, c, h, w)

REQUEST_TIMEOUT_S = 60.0
MOST_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Answer:
    """Verdicts for n rows, each array (n,), and how many cells were unseen or missing."""

    score: NDArray[np.float32]
    normalized_score: NDArray[np.float32]
    p_value: NDArray[np.float32]
    is_anomaly: NDArray[np.bool_]
    unseen_categories: int = 0
    missing_values: int = 0


class VerdictSource(Protocol):
    """A detector that answers. workers: how many threads may ask it at a time."""

    name: str
    version: int
    threshold: float
    spec: ImageInput | TableInput
    workers: int

    def score(self, rows: Rows) -> Answer: ...


class BundleSource:
    """A bundle, loaded into this process."""

    def __init__(self, models: Path, reference: str, *, device: str = "auto") -> None:
        from amiss_serving.detector import load_detector
        from amiss_serving.runtimes import RuntimeOptions

        name, version = split_reference(reference)
        number = resolve_version(models, name, version)
        self._detector = load_detector(models, name, number, options=RuntimeOptions(device=device))
        self.name, self.version = name, number
        self.threshold = self._detector.bundle.manifest.decision.threshold
        self.spec = self._detector.spec
        self.workers = min(8, os.cpu_count() or 1)

    def score(self, rows: Rows) -> Answer:
        """Verdicts for the rows. Raises BadInput for rows the detector does not take."""
        from amiss_export.decode import check_images, encode_columns

        unseen = missing = 0
        if isinstance(self.spec, TableInput):
            encoded = encode_columns(rows, self.spec)  # type: ignore[arg-type]  # by the spec
            unseen, missing = encoded.unseen_categories, encoded.missing_values
            x: NDArray[Any] = encoded.rows
        else:
            x = check_images(rows, self.spec)  # type: ignore[arg-type]  # by the spec
        v = self._detector.score(x).verdicts
        return Answer(v.score, v.normalized_score, v.p_value, v.is_anomaly, unseen, missing)


class ServiceSource:
    """A detector of a running service; every row goes to the version found at the start."""

    workers = 2  # the client keeps several requests of each in flight

    def __init__(
        self, client: Client, reference: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        name, version = split_reference(reference)
        with our_errors():
            detector = client.get_detector(name, version or "")
        self._client = client
        self._sleep = sleep
        self.name, self.version = detector.name, detector.version
        self.threshold = detector.threshold
        self.spec = input_of(detector)

    def score(self, rows: Rows) -> Answer:
        """Verdicts for the rows; waits its turn while the service's queue is full."""
        waited_s = 0.0
        while True:
            try:
                with our_errors():
                    return _answer(self._ask(rows))
            except Overloaded as error:
                pause_s = error.retry_after_s or 1.0
                if waited_s + pause_s > MOST_PATIENCE_S:
                    raise AmissError(
                        f"the service was overloaded for {waited_s:.0f} s ({error}); try later"
                    ) from error
                waited_s += pause_s
                self._sleep(pause_s)

    def _ask(self, rows: Rows) -> Scores:
        asked = {"version": self.version, "timeout_s": REQUEST_TIMEOUT_S}
        if isinstance(rows, np.ndarray):
            return self._client.score_tensor(self.name, rows, **asked)  # type: ignore[arg-type]
        return self._client.score_table(self.name, rows, **asked)  # type: ignore[arg-type]


def open_client(address: str, token_file: Path | None = None) -> Client:
    """A client of the service. The token: the file's, else AMISS_TOKEN's, else none."""
    try:
        token = None if token_file is None else token_file.read_text().strip()
    except (OSError, ValueError) as error:
        raise BadInput(f"--token-file {token_file}: cannot be read: {error}") from error
    with our_errors():
        return Client(address, token=token)


def input_of(detector: DetectorInfo) -> ImageInput | TableInput:
    """The bundle's own description of its input, as far as the wire tells it."""
    spec = detector.input
    if isinstance(spec, ImageSpec):
        return ImageInput.model_validate(
            {"channels": spec.channels, "height": spec.height, "width": spec.width}
        )
    return _table_input(spec)


def _table_input(spec: TableSpec) -> TableInput:
    columns = tuple(
        Column(
            name=column.name,
            kind=column.kind,
            dtype="float64" if column.kind == "number" else "str",
            unit=column.unit or None,
            categories=column.categories,
            missing="impute" if column.accepts_missing else "refuse",
        )
        for column in spec.columns
    )
    return TableInput(
        columns=columns,
        source_columns=spec.source_columns,
        label_column=spec.label_column or None,
    )


def _answer(scores: Scores) -> Answer:
    return Answer(
        scores.score,
        scores.normalized_score,
        scores.p_value,
        scores.is_anomaly,
        scores.unseen_categories,
        scores.missing_values,
    )


@contextmanager
def our_errors() -> Iterator[None]:
    """The client's errors as those the command line has exit codes for, Overloaded aside."""
    try:
        yield
    except Overloaded:
        raise
    except InvalidInput as error:
        raise BadInput(_with_id(error)) from error
    except LoadFailed as error:
        raise BundleRefused(_with_id(error)) from error
    except DetectorNotFound as error:
        raise BundleNotFound(_with_id(error)) from error
    except AmissClientError as error:
        raise AmissError(_with_id(error)) from error


def _with_id(error: AmissClientError) -> str:
    known = not error.request_id or error.request_id in str(error)
    return str(error) if known else f"{error} (request id {error.request_id})"
