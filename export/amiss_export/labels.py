"""Which version a label means: promotion and rollback, one writer at a time, never half a file.

models/<name>/labels.json  {"stable": 3, "canary": 4, "previous": 2}

`previous` is what `stable` meant before: it is written here alone, so that a rollback knows where
to go and a service keeps that version loaded.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amiss_export.bundle import (
    LABELS,
    NAME_PATTERN,
    VERSION_PATTERN,
    check_name,
    list_versions,
    read_labels,
)
from amiss_export.errors import BadInput, BundleNotFound

STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"


@dataclass(frozen=True)
class Relabelled:
    """A label and the version it means now; before: what it meant until now, None for nothing.

    labels: all of them, as they now stand.
    """

    name: str
    label: str
    version: int
    before: int | None
    labels: dict[str, int]


def promote(
    models: Path, name: str, version: int, label: str, *, answering: int | None = None
) -> Relabelled:
    """Point a label at a version. With `stable`, remember what the bare name meant until now.

    answering: what it means to the caller while nothing is `stable`; None: the newest version.

    Whoever calls has seen that the version loads. Raises BadInput for a label that cannot be one
    and BundleNotFound when the version is not there.
    """
    check_label(label)
    versions = list_versions(models).get(check_name(name), [])
    if version not in versions:
        have = versions or "none"
        raise BundleNotFound(f"detector {name!r} has no version {version}; versions: {have}")
    with _changing(models, name) as labels:
        before = labels.get(label)
        if label == STABLE:
            meant = before or answering or versions[-1]
            if meant != version:
                labels[PREVIOUS] = meant
        labels[label] = version
    return Relabelled(name, label, version, before, dict(labels))


def rollback(models: Path, name: str) -> Relabelled:
    """Point `stable` at what it meant before. Raises BadInput when that is not on record.

    It goes back one step: a second rollback is refused, so that one that is sent twice does not
    bring the bad version back.
    """
    if not list_versions(models).get(check_name(name)):
        raise BundleNotFound(f"no detector {name!r}")
    with _changing(models, name) as labels:
        version = version_before(name, labels)
        before = labels.get(STABLE)
        labels[STABLE] = version
        del labels[PREVIOUS]
    return Relabelled(name, STABLE, version, before, dict(labels))


def version_before(name: str, labels: dict[str, int]) -> int:
    """The version that a rollback goes to. Raises BadInput when there is none on record."""
    if PREVIOUS not in labels:
        now = f"{name}@{labels[STABLE]}" if STABLE in labels else "no version"
        raise BadInput(
            f"detector {name!r}: 'stable' is {now} and what it was before is not on record; "
            "promote the version you want to 'stable'"
        )
    return labels[PREVIOUS]


def check_label(label: str) -> str:
    """The label itself, when a person may set it."""
    if not NAME_PATTERN.fullmatch(label) or VERSION_PATTERN.fullmatch(label) or label == PREVIOUS:
        raise BadInput(
            f"a label must match {NAME_PATTERN.pattern}, be no number and not {PREVIOUS!r}, got "
            f"{label!r:.80}; the usual ones are {STABLE!r} and {CANARY!r}"
        )
    return label


@contextmanager
def _changing(models: Path, name: str) -> Iterator[dict[str, int]]:
    """The labels, to be changed in place; written when the block ends well, by one at a time."""
    folder = models / name
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        labels = read_labels(models, name)
        yield labels
        aside = folder / f".{LABELS}"  # one writer at a time: the name is ours
        with aside.open("w") as file:
            json.dump(labels, file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / LABELS)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
