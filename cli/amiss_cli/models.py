"""`amiss models`: which bundles there are, whether they may be served, which version answers."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amiss_cli.usage import UsageParser
from amiss_export.errors import BundleNotFound, BundleRefused

if TYPE_CHECKING:
    from amiss_export.bundle import Bundle, Manifest


@dataclass(frozen=True)
class Entry:
    """One line of the list. reason: why the bundle is refused; empty when it is good."""

    name: str
    version: int
    labels: tuple[str, ...]
    detector: str = ""
    readout: str = ""
    alarm_rate: float | None = None
    auroc: float | None = None
    created: str = ""
    reason: str = ""


def main(argv: list[str]) -> int:
    """Exit code of `amiss models ARGV`. Raises AmissError."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _parser() -> UsageParser:
    parser = UsageParser(prog="amiss models", description="Look after bundles.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        command = commands.add_parser(name, help=text, description=f"{text}.".capitalize())
        command.set_defaults(run=run)
        where = command.add_mutually_exclusive_group()
        if run in (_promote, _rollback):
            where.add_argument(
                "--address",
                metavar="HOST:PORT",
                help="ask a service at its gRPC address instead; it must run with "
                "--repository-mode poll or explicit",
            )
            command.add_argument(
                "--token-file",
                type=Path,
                help="file with the service's token (default: AMISS_TOKEN)",
            )
        where.add_argument(
            "--models",
            type=Path,
            default=Path("models"),
            help="folder of bundles (default: models)",
        )
        return command

    reference = {"metavar": "NAME[@VERSION|@LABEL]"}
    add("list", _list, "list every bundle, refused ones with the reason").add_argument(
        "--json", action="store_true", help="as JSON"
    )
    show = add("show", _show, "show one bundle's manifest in short")
    show.add_argument("reference", **reference)
    show.add_argument("--json", action="store_true", help="the whole manifest as JSON")
    verify = add(
        "verify", _verify, "check bundles against their manifests; exit code 1 if one fails"
    )
    verify.add_argument("reference", nargs="?", help="default: every version", **reference)
    verify.add_argument("--json", action="store_true", help="as JSON")
    again = add("recalibrate", _recalibrate, "make a new version with another threshold")
    again.add_argument("reference", **reference)
    again.add_argument(
        "--alarm-rate", type=float, required=True, help="share of normal rows that may alarm, 0..1"
    )
    again.add_argument(
        "--confidence",
        type=float,
        help="hold the rate with this probability over the calibration draw, 0..1 "
        "(default: hold it on average)",
    )
    promote = add("promote", _promote, "point a label at a version")
    promote.add_argument("reference", metavar="NAME@VERSION|NAME@LABEL")
    promote.add_argument(
        "label", metavar="LABEL", help="stable: what NAME alone means; canary; ..."
    )
    rollback = add("rollback", _rollback, "point stable at the version it meant before")
    rollback.add_argument("name", metavar="NAME")
    return parser


def _list(arguments: argparse.Namespace) -> int:
    entries = list(_entries(arguments.models))
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return 0
    if not entries:
        print(f"no bundles in {arguments.models}; `amiss train` writes one")
        return 0
    head = ("NAME", "VERSION", "LABELS", "DETECTOR", "READ-OUT", "ALARM RATE", "AUROC", "CREATED")
    good = [entry for entry in entries if not entry.reason]
    if good:
        print(_aligned([head, *(_cells(entry) for entry in good)]))
    for entry in entries:
        if entry.reason:
            print(f"refused {entry.name}@{entry.version}: {entry.reason}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from amiss_export.bundle import read_bundle, resolve_version, split_reference

    name, version = split_reference(arguments.reference)
    bundle = read_bundle(arguments.models, name, resolve_version(arguments.models, name, version))
    labels = _labels_of(arguments.models, name, bundle.version)
    if arguments.json:
        shown = {"version": bundle.version, "labels": labels}
        print(json.dumps({**shown, **bundle.manifest.model_dump(mode="json")}, indent=2))
        return 0
    print(_aligned(_facts(bundle, labels)))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    models = arguments.models
    results = [
        {"name": name, "version": version, "reason": _refusal(models, name, version)}
        for name, version in _wanted(models, arguments.reference)
    ]
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            verdict = f"REFUSED {result['reason']}" if result["reason"] else "ok"
            print(f"{result['name']}@{result['version']}: {verdict}")
    return 1 if any(result["reason"] for result in results) else 0


def _recalibrate(arguments: argparse.Namespace) -> int:
    from amiss_export.bundle import read_bundle, read_labels, resolve_version, split_reference
    from amiss_export.recalibrate import recalibrate

    models = arguments.models
    name, label = split_reference(arguments.reference)
    version = resolve_version(models, name, label)
    new = recalibrate(
        models,
        name,
        version,
        alarm_rate=arguments.alarm_rate,
        confidence=arguments.confidence,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    before, after = (read_bundle(models, name, v).manifest.decision for v in (version, new))
    print(
        f"{name}@{new}: threshold {after.threshold:.6g} at alarm rate {after.alarm_rate:g} "
        f"(was {before.threshold:.6g} at {before.alarm_rate:g} in {name}@{version})"
    )
    if (stable := read_labels(models, name).get("stable")) is not None:
        print(
            f"the label 'stable' still points at {name}@{stable}; "
            f"`amiss models promote {name}@{new} stable` moves it"
        )
    return 0


def _promote(arguments: argparse.Namespace) -> int:
    from amiss_cli.promotion import promote_command

    return promote_command(arguments)


def _rollback(arguments: argparse.Namespace) -> int:
    from amiss_cli.promotion import rollback_command

    return rollback_command(arguments)


def _entries(models: Path) -> Iterator[Entry]:
    from amiss_export.bundle import list_versions, read_bundle

    for name, versions in list_versions(models).items():
        for version in versions:
            try:
                labels = _labels_of(models, name, version)
                yield _entry(read_bundle(models, name, version).manifest, version, labels)
            except (BundleRefused, BundleNotFound) as error:
                yield Entry(name, version, (), reason=_one_line(error))


def _entry(manifest: "Manifest", version: int, labels: tuple[str, ...]) -> Entry:
    auroc = manifest.metrics.get("auroc")
    return Entry(
        name=manifest.name,
        version=version,
        labels=labels,
        detector=manifest.detector,
        readout=manifest.readout,
        alarm_rate=manifest.decision.alarm_rate,
        auroc=auroc if isinstance(auroc, float) else None,
        created=manifest.provenance.created,
    )


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        entry.name,
        str(entry.version),
        ",".join(entry.labels) or "-",
        entry.detector,
        entry.readout,
        f"{entry.alarm_rate:g}",
        "-" if entry.auroc is None else f"{entry.auroc:.4f}",
        entry.created,
    )


def _facts(bundle: "Bundle", labels: tuple[str, ...]) -> list[tuple[str, str]]:
    """What a person asks of a bundle, name and value."""
    manifest, d = bundle.manifest, bundle.manifest.decision
    confidence = "" if d.confidence is None else f", confidence {d.confidence:g}"
    origin = manifest.provenance
    source = "" if origin.recalibrated_from is None else f" from @{origin.recalibrated_from}"
    metrics = {k: v for k, v in manifest.metrics.items() if isinstance(v, (int, float, str))}
    return [
        ("bundle", f"{bundle.name}@{bundle.version}"),
        ("labels", ", ".join(labels) or "-"),
        ("detector", f"{manifest.detector}, read-out {manifest.readout}"),
        ("input", _input_text(manifest)),
        ("alarm rate", f"{d.alarm_rate:g} ({d.alarm_rate_source}, {d.method}{confidence})"),
        ("threshold", f"{d.threshold:.6g} (k = {d.k} of n = {d.n} calibration normals)"),
        *(
            (key, f"{value:.6g}" if isinstance(value, float) else str(value))
            for key, value in metrics.items()
        ),
        ("created", f"{origin.created}{source}, recipe {origin.recipe or '-'}, seed {origin.seed}"),
        ("commit", origin.git_commit or "-"),
        (
            "parity",
            f"onnx {manifest.parity.onnx:.1e}, torchscript {manifest.parity.torchscript:.1e}"
            f" of {manifest.parity.tolerance:.0e} allowed, {manifest.parity.rows} rows",
        ),
        *(
            (file, f"{entry.bytes} bytes, sha256 {entry.sha256[:16]}..")
            for file, entry in manifest.files.items()
        ),
    ]


def _input_text(manifest: "Manifest") -> str:
    spec = manifest.input
    if spec.kind == "image":
        return f"images, {spec.channels} x {spec.height} x {spec.width}"
    kinds = [column.kind for column in spec.columns]
    return (
        f"table, {len(kinds)} columns ({kinds.count('number')} numbers, "
        f"{kinds.count('category')} categories), {len(spec.dropped)} dropped"
    )


def _wanted(models: Path, reference: str | None) -> list[tuple[str, int]]:
    """The bundles to verify: one version, all versions of a name, or everything."""
    from amiss_export.bundle import list_versions, resolve_version, split_reference

    there = list_versions(models)
    if reference is None:
        return [(name, v) for name, versions in there.items() for v in versions]
    name, version = split_reference(reference)
    if version is None and name in there:
        return [(name, v) for v in there[name]]
    return [(name, resolve_version(models, name, version))]


def _refusal(models: Path, name: str, version: int) -> str:
    """Why a service would refuse the bundle; empty when it would take it."""
    from amiss_serving.detector import load_detector
    from amiss_serving.runtimes import RuntimeOptions

    try:
        load_detector(models, name, version, options=RuntimeOptions(device="cpu"))
    except (BundleRefused, BundleNotFound, OSError) as error:
        return _one_line(error)
    return ""


def _labels_of(models: Path, name: str, version: int) -> tuple[str, ...]:
    from amiss_export.bundle import read_labels

    return tuple(sorted(k for k, v in read_labels(models, name).items() if v == version))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
