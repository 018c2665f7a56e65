"""A label moved while serving: the version loads first, then the label is written, then it answers.

Both functions block, return what the name should serve now, and change nothing when they raise:
DetectorNotFound, LoadFailed, BadInput, or AmissError when the folder cannot be written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from amiss_export import labels
from amiss_export.bundle import read_labels, resolve_version
from amiss_export.errors import AmissError, BadInput, BundleNotFound, BundleRefused
from amiss_export.labels import Relabelled
from amiss_serving.errors import DetectorNotFound, LoadFailed
from amiss_serving.versions import Load, Versions, load_versions, reason_of, with_version

Relabel = Callable[[Path, Versions, Load], tuple[Relabelled, Versions]]


def promote(
    models: Path, before: Versions, load: Load, *, version: str, label: str
) -> tuple[Relabelled, Versions]:
    """The label pointed at a version, given by number or label."""
    labels.check_label(label)
    if not version:
        raise BadInput("expected a version number or label to promote, got none")
    with _our_errors(models, before.name):
        number = resolve_version(models, before.name, version)
        ready = with_version(models, before, number, load)
        relabelled = labels.promote(
            models, before.name, number, label, answering=_answering(before)
        )
        return relabelled, load_versions(models, ready, load)


def roll_back(models: Path, before: Versions, load: Load) -> tuple[Relabelled, Versions]:
    """'stable' pointed at what it meant before; see amiss_export.labels.rollback."""
    with _our_errors(models, before.name):
        number = labels.version_before(before.name, read_labels(models, before.name))
        ready = with_version(models, before, number, load)
        relabelled = labels.rollback(models, before.name)
        return relabelled, load_versions(models, ready, load)


def _answering(before: Versions) -> int | None:
    """The version that the bare name means; None when nothing answers for it."""
    try:
        return before.resolve("").version
    except DetectorNotFound:
        return None


@contextmanager
def _our_errors(models: Path, name: str) -> Iterator[None]:
    """The errors of files as those the doors have in their tables."""
    try:
        yield
    except BundleNotFound as error:
        raise DetectorNotFound(reason_of(error, models)) from error
    except BundleRefused as error:
        raise LoadFailed(reason_of(error, models)) from error
    except OSError as error:
        raise AmissError(
            f"the labels of {name!r} cannot be written ({error.strerror}); the service needs to "
            "write in the models folder"
        ) from error
