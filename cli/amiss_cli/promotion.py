"""`amiss models promote` and `rollback`: which version answers, on disk or in a running service."""

from argparse import Namespace
from pathlib import Path

from amiss_cli.verdict_source import open_client, our_errors
from amiss_export.bundle import read_bundle, read_labels, resolve_version, split_reference
from amiss_export.errors import BadInput
from amiss_export.labels import PREVIOUS, STABLE, promote, rollback

LOAD_TIMEOUT_S = 300.0  # the service answers when the version has loaded


def promote_command(arguments: Namespace) -> int:
    """Exit code of `amiss models promote`. On disk the bundle is checked before it is promoted."""
    name, version = split_reference(arguments.reference)
    if not version:
        raise BadInput(
            f"expected NAME@VERSION or NAME@LABEL to promote, got {arguments.reference!r}"
        )
    if arguments.address:
        with our_errors(), open_client(arguments.address, arguments.token_file) as client:
            change = client.promote(name, version, arguments.label, timeout_s=LOAD_TIMEOUT_S)
            _print(name, arguments.label, change.version, change.version_before)
        return 0
    number = resolve_version(arguments.models, name, version)
    read_bundle(arguments.models, name, number)
    done = promote(arguments.models, name, number, arguments.label)
    _print(name, done.label, done.version, done.before)
    return 0


def rollback_command(arguments: Namespace) -> int:
    """Exit code of `amiss models rollback`. On disk the bundle is checked before it is stable."""
    name = arguments.name
    if arguments.address:
        with our_errors(), open_client(arguments.address, arguments.token_file) as client:
            change = client.rollback(name, timeout_s=LOAD_TIMEOUT_S)
            _print(name, STABLE, change.version, change.version_before)
        return 0
    models: Path = arguments.models
    before = read_labels(models, name).get(PREVIOUS)
    if before is not None:
        read_bundle(models, name, before)
    done = rollback(models, name)
    _print(name, done.label, done.version, done.before)
    return 0


def _print(name: str, label: str, version: int, before: int | None) -> None:
    was = "meant nothing" if before is None else f"was {name}@{before}"
    print(f"{label} is now {name}@{version} ({was})")
