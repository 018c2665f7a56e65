"""A bundle measured again: on the rows its training held out, or on data it has never seen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from amiss_export.bundle import ONNX, Bundle, read_bundle
from amiss_export.decision import DecisionRule
from amiss_export.errors import BadInput
from amiss_export.parity import onnx_reconstruction, onnx_scores
from amiss_training.assess import assess, report_inputs
from amiss_training.data import DataOptions, Prepared, load_labelled, mark_anomalies, prepare
from amiss_training.data.labels import classes_of
from amiss_training.data.loaders import locate
from amiss_training.data.options import check_options
from amiss_training.evaluate import evaluate
from amiss_training.report import ReportInputs, write_report

NO_PEERS = "no peers: they are fitted on training rows; give the data the bundle was trained on"

SEEN = "it was trained on some of these rows: the figures flatter it"


@dataclass(frozen=True)
class Evaluated:
    """reference: NAME@VERSION. rows: what was measured, in words. The rest as in Assessment."""

    reference: str
    rows: str
    metrics: dict[str, Any]
    peers: Mapping[str, Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def evaluate_bundle(
    models: Path,
    name: str,
    version: int,
    *,
    data: Path | None,
    overrides: Mapping[str, str],
    report: Path | None = None,
) -> Evaluated:
    """Metrics of the bundle on `data`, and a report in the folder `report` when it is given.

    The data it was trained on gives its held-out test rows, with peers on the same split; any
    other data is taken whole, without peers. data None: a starter's own data. overrides: of
    label_column, normal_class, anomaly_class where they differ from training.
    """
    bundle = read_bundle(models, name, version)
    options = _options(bundle, overrides)
    prepared = _prepared(bundle, data, options)
    provenance = bundle.manifest.provenance
    if prepared is not None and prepared.split_hash == provenance.split_hash:
        rows, inputs = _held_out(bundle, prepared, oracle=options.oracle_flag_share)
    else:
        was_seen = prepared is not None and prepared.data_hash == provenance.data_hash
        rows, inputs = _unseen(bundle, data, options, notes=[NO_PEERS, *[SEEN] * was_seen])
    if report is not None:
        write_report(report, inputs)
    return Evaluated(f"{name}@{version}", rows, inputs.metrics, inputs.peers)


def _options(bundle: Bundle, overrides: Mapping[str, str]) -> DataOptions:
    """The options of the training run, less those that the overrides replace."""
    known = {f.name for f in fields(DataOptions)}
    stored = bundle.manifest.provenance.config.get("options", {})
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in known
    }
    if {"normal_class", "anomaly_class"} & set(overrides):
        values |= {"normal_class": None, "anomaly_class": None, "out_data": None}
    options = DataOptions(**(values | dict(overrides)))
    check_options(options)
    return options


def _prepared(bundle: Bundle, data: Path | None, options: DataOptions) -> Prepared | None:
    """The data as training would divide it; None when they are of quite another kind."""
    try:
        return prepare(data, options, seed=bundle.manifest.provenance.seed)
    except BadInput:  # measured whole, or refused with its reason then
        return None


def _held_out(
    bundle: Bundle, prepared: Prepared, *, oracle: float | None
) -> tuple[str, ReportInputs]:
    """The test rows of the bundle's own split."""
    onnx = bundle.path / ONNX
    found = assess(
        onnx,
        decision=bundle.manifest.decision,
        calibration=bundle.calibration,
        prepared=prepared,
        seed=bundle.manifest.provenance.seed,
        oracle_flag_share=oracle,
    )
    inputs = report_inputs(found, manifest=bundle.manifest, prepared=prepared, onnx=onnx)
    return f"{len(prepared.roles.test):,} held-out test rows of its own split", inputs


def _unseen(
    bundle: Bundle, data: Path | None, options: DataOptions, *, notes: list[str]
) -> tuple[str, ReportInputs]:
    """Every row of `data`."""
    manifest, onnx = bundle.manifest, bundle.path / ONNX
    loader, data_set = (options.loader, options.data_set) if data is None else ("auto", None)
    x, label, names = load_labelled(
        data,
        manifest.input,
        loader=loader,
        data_set=data_set,
        label_column=options.label_column,
        attack_families=options.attack_families,
    )
    name = str(data or data_set or loader)
    kind = options.data_set or options.loader  # what is normal where no class was named
    if kind == "auto":
        _, kind = locate(data, "auto")
    classes = classes_of(options, kind, name=name, has_labels=label is not None)
    text = np.full(len(x), "normal") if label is None else label
    is_anomaly = mark_anomalies(text, classes, name=name)
    verdicts = DecisionRule(manifest.decision, bundle.calibration)(onnx_scores(onnx, x))
    inputs = ReportInputs(
        title=bundle.name,
        manifest=manifest,
        metrics=evaluate(
            verdicts=verdicts,
            is_anomaly=is_anomaly,
            label=text,
            decision=manifest.decision,
            oracle_flag_share=options.oracle_flag_share,
            is_mixture=not options.keep_anomalies_out,
        ),
        peers={},
        peer_scores={},
        score=verdicts.score,
        is_anomaly=is_anomaly,
        label=text,
        names=names,
        x=x,
        reconstruct=lambda rows: onnx_reconstruction(onnx, rows),
        notes=notes,
    )
    return f"all {len(x):,} rows of {name} ({'; '.join(notes)})", inputs
