"""A bundle on disk: its manifest, and how it is found and checked before use.

models/<name>/<version>/   manifest.json  model.onnx  model.pt  calibration.npy  report/
                           decoder.onnx (optional: what `amiss sample` draws from)
models/<name>/labels.json  {"stable": 3, "canary": 4}
"""

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from amiss_export.errors import BadInput, BundleNotFound, BundleRefused

SCHEMA_VERSION = 1
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION_PATTERN = re.compile(r"[1-9][0-9]{0,8}")
MANIFEST, ONNX, TORCHSCRIPT, CALIBRATION = (
    "manifest.json",
    "model.onnx",
    "model.pt",
    "calibration.npy",
)
DECODER = "decoder.onnx"  # absent from bundles older than `amiss sample`
LABELS = "labels.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ImageInput(_Record):
    """Images enter the graph as uint8 (n, channels, height, width)."""

    kind: Literal["image"] = "image"
    channels: Literal[1, 3]
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    resize: Literal["bilinear"] = "bilinear"
    value_range: tuple[int, int] = (0, 255)


class Column(_Record):
    """One column of the graph's input, in order.

    A number travels as itself, a category as its code: 0 unseen, 1 missing, 2 + i for
    categories[i].
    missing: 'impute' accepts an empty cell, 'refuse' makes it an error.
    """

    name: str
    kind: Literal["number", "category"]
    dtype: str
    unit: str | None = None
    categories: tuple[str, ...] = ()
    missing: Literal["impute", "refuse"] = "impute"


class DroppedColumn(_Record):
    """A column of the source that the detector does not look at, and why."""

    name: str
    reason: str


class TableInput(_Record):
    """Rows enter the graph as float32 (n, len(columns)).

    source_columns: every column of the training file in file order, label included, so that the
    same file without a header can be read by position.
    """

    kind: Literal["table"] = "table"
    columns: tuple[Column, ...] = Field(min_length=1)
    dropped: tuple[DroppedColumn, ...] = ()
    source_columns: tuple[str, ...] = ()
    label_column: str | None = None


class Output(_Record):
    """One output of the graph; -1 is the number of rows."""

    name: str
    dtype: Literal["float32"] = "float32"
    shape: tuple[int, ...]


class Decision(_Record):
    """How a score becomes a verdict; see amiss_export.decision for the formulas.

    n calibration normals, threshold = k-th smallest of their scores, scale = their interquartile
    range, ties = how many of them equal the threshold besides the k-th.
    """

    method: Literal["marginal", "pac"]
    alarm_rate: float = Field(gt=0, lt=1)
    alarm_rate_source: Literal["asked", "default"]
    confidence: float | None = None
    n: int = Field(ge=1)
    k: int = Field(ge=1)
    threshold: float
    median: float
    scale: float = Field(gt=0)
    ties: int = Field(ge=0)
    calibration_file: str = CALIBRATION


class Parity(_Record):
    """Largest score difference between eager torch and each runtime, in units of Decision.scale."""

    rows: int
    tolerance: float
    onnx: float
    torchscript: float


class Provenance(_Record):
    """Where the bundle comes from; enough to train it again."""

    created: str
    recipe: str | None
    seed: int
    config: dict[str, Any]
    data_hash: str
    split_hash: dict[str, str]
    split_rows: dict[str, int]
    duplicate_rows_removed: int
    git_commit: str | None
    libraries: dict[str, str]
    recalibrated_from: int | None = None
    notes: tuple[str, ...] = ()  # what people should know about the rows


class FileEntry(_Record):
    sha256: str
    bytes: int


class Manifest(_Record):
    """What manifest.json holds."""

    schema_version: int = SCHEMA_VERSION
    name: str
    detector: str
    readout: str
    input: Annotated[ImageInput | TableInput, Field(discriminator="kind")]
    outputs: tuple[Output, ...]
    decision: Decision
    metrics: dict[str, Any] = {}
    provenance: Provenance
    parity: Parity
    files: dict[str, FileEntry] = {}


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file matched its manifest when it was read."""

    path: Path
    version: int
    manifest: Manifest
    calibration: NDArray[np.float32]

    @property
    def name(self) -> str:
        return self.manifest.name

    def read(self, file: str) -> bytes:
        """Contents of one listed file, checked against its sha256 on the way in."""
        return _read_checked(self.path, file, self.manifest.files)


def check_name(name: str) -> str:
    """The name itself, when it is safe as a folder name."""
    if not NAME_PATTERN.fullmatch(name):
        raise BadInput(
            f"detector name must match {NAME_PATTERN.pattern}, got {name!r}; "
            "use letters, digits, dot, dash and underscore"
        )
    return name


def list_versions(models: Path) -> dict[str, list[int]]:
    """Version numbers by detector name, ascending. Half-written bundles are not in it."""
    found: dict[str, list[int]] = {}
    if not models.is_dir():
        return found
    for folder in sorted(models.iterdir()):
        if not NAME_PATTERN.fullmatch(folder.name) or not folder.is_dir():
            continue
        versions = [
            int(v.name)
            for v in folder.iterdir()
            if VERSION_PATTERN.fullmatch(v.name) and v.is_dir()
        ]
        if versions:
            found[folder.name] = sorted(versions)
    return found


def read_labels(models: Path, name: str) -> dict[str, int]:
    """Labels of a detector, e.g. {"stable": 3}; empty when it has none."""
    path = models / check_name(name) / LABELS
    if not path.exists():
        return {}
    try:
        labels = json.loads(path.read_text())
        return {str(label): int(version) for label, version in labels.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BundleRefused(
            f'{path}: expected {{"label": version}}, got {error}; mend or delete the file'
        ) from error


def split_reference(reference: str) -> tuple[str, str | None]:
    """('digits', '3') of 'digits@3'; the second is None without an '@'."""
    name, at, version = reference.partition("@")
    return check_name(name), version if at else None


def resolve_version(models: Path, name: str, version: str | None = None) -> int:
    """The version number that NAME, NAME@VERSION or NAME@LABEL means.

    Without a version: the one labelled 'stable', else the newest.
    """
    versions = list_versions(models).get(check_name(name))
    if not versions:
        have = ", ".join(list_versions(models)) or "none"
        raise BundleNotFound(f"no detector {name!r} in {models} (there: {have}); train it first")
    labels = read_labels(models, name)
    wanted = version or ("stable" if "stable" in labels else str(versions[-1]))
    number = labels.get(wanted) or (int(wanted) if VERSION_PATTERN.fullmatch(wanted) else None)
    if number not in versions:
        raise BundleNotFound(
            f"detector {name!r} has no version or label {wanted!r}; "
            f"versions: {versions}, labels: {labels or 'none'}"
        )
    return number


def read_bundle(models: Path, name: str, version: int) -> Bundle:
    """The bundle, after every file of it has been checked.

    Raises BundleNotFound when it is not there and BundleRefused, with the reason, when a file is
    missing, altered, a link out of the folder, or written by a newer Amiss.
    """
    path = models / check_name(name) / str(version)
    if not path.is_dir():
        raise BundleNotFound(f"no bundle {name}@{version} in {models}")
    if not path.resolve().is_relative_to(models.resolve()):
        raise BundleRefused(f"{path}: the folder is a link out of {models}; copy the bundle in")
    manifest = read_manifest(path)
    if manifest.name != name:
        raise BundleRefused(
            f"{path}: the manifest is of detector {manifest.name!r}, the folder of {name!r}"
        )
    for required in (ONNX, TORCHSCRIPT, manifest.decision.calibration_file):
        if required not in manifest.files:
            raise BundleRefused(f"{path}: the manifest lists no {required}")
    for file in manifest.files:
        _read_checked(path, file, manifest.files)
    return Bundle(path, version, manifest, read_calibration(path, manifest))


def read_manifest(path: Path) -> Manifest:
    try:
        raw = json.loads(_inside(path, MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise BundleRefused(f"{path}: {MANIFEST} cannot be read: {error}") from error
    schema = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise BundleRefused(f"{path}: {MANIFEST} has no schema_version")
    if schema > SCHEMA_VERSION:
        raise BundleRefused(
            f"{path}: schema_version {schema} is newer than {SCHEMA_VERSION}, the newest this "
            "Amiss reads; upgrade Amiss"
        )
    try:
        return Manifest.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleRefused(f"{path}: {MANIFEST}: {where}: {first['msg']}") from error


def read_calibration(path: Path, manifest: Manifest) -> NDArray[np.float32]:
    file = manifest.decision.calibration_file
    try:
        contents = io.BytesIO(_read_checked(path, file, manifest.files))
        scores: NDArray[np.float32] = np.load(contents, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleRefused(f"{path}: {file} cannot be read: {error}") from error
    expected = (manifest.decision.n,)
    if scores.dtype != np.float32 or scores.shape != expected or not np.isfinite(scores).all():
        raise BundleRefused(
            f"{path}: {file} must hold {expected} finite float32 scores, "
            f"got {scores.shape} {scores.dtype}"
        )
    if (np.diff(scores) < 0).any():
        raise BundleRefused(f"{path}: {file} must be sorted")
    return scores


def _inside(path: Path, file: str) -> Path:
    """The file's path, when it really lies in the bundle's folder."""
    target = path / file
    if not target.resolve().is_relative_to(path.resolve()):
        raise BundleRefused(f"{path}: {file} leads out of the bundle's folder")
    return target


def _read_checked(path: Path, file: str, files: dict[str, FileEntry]) -> bytes:
    entry = files.get(file)
    if entry is None:
        raise BundleRefused(f"{path}: the manifest lists no {file}")
    target = _inside(path, file)
    if not target.is_file():
        raise BundleRefused(f"{path}: {file} is missing")
    contents = target.read_bytes()
    if len(contents) != entry.bytes or sha256_of(contents) != entry.sha256:
        raise BundleRefused(
            f"{path}: {file} is not the file that was exported (sha256 differs from the manifest)"
        )
    return contents


def sha256_of(contents: bytes) -> str:
    """The digest as the manifest writes it."""
    return hashlib.sha256(contents).hexdigest()
