"""A row's life up to the bundle: data, fit, export, calibrate, evaluate, report, publish."""

import dataclasses
import hashlib
import json
import logging
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amiss_export.bundle import (
    CALIBRATION,
    ONNX,
    TORCHSCRIPT,
    ImageInput,
    Manifest,
    Output,
    Provenance,
    TableInput,
    check_name,
)
from amiss_export.decision import calibrate, rows_needed, smallest_alarm_rate
from amiss_export.errors import BadInput, TooFewRows
from amiss_export.graph import ImageFeatures, ScoringGraph, TableFeatures
from amiss_export.parity import check_parity, onnx_scores
from amiss_export.publish import publish, writing_bundle
from amiss_export.to_onnx import write_onnx
from amiss_export.to_torchscript import write_torchscript
from amiss_training.assess import Assessment, assess, report_inputs
from amiss_training.checks import check_range
from amiss_training.data import DataOptions, Prepared, describe, prepare
from amiss_training.detectors import DETECTORS, VaeConfig
from amiss_training.fit import FitConfig, Fitted, fit, forget
from amiss_training.report import write_report

Say = Callable[[str], None]
LIBRARIES = ("amiss", "torch", "lightning", "numpy", "onnx", "onnxruntime-gpu", "onnxruntime")
REPORT = "report"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run makes.

    trainer: arguments of Lightning's Trainer. alarm_rate, confidence: see `calibrate`.
    """

    name: str
    data: str | None = None
    models: str = "models"
    runs: str = "runs"
    detector: str = "vae"
    recipe: str | None = None
    seed: int = 0
    alarm_rate: float | None = None
    confidence: float | None = None
    resume: bool = False
    options: DataOptions = field(default_factory=DataOptions)
    vae: VaeConfig = field(default_factory=VaeConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """The bundle that training wrote."""

    name: str
    version: int
    path: Path
    assessment: Assessment


def train(config: TrainConfig, *, say: Say = print) -> Trained | None:
    """The published bundle; None in the other processes of a distributed run.

    Prints what it does, one line a step, through `say`.
    Raises BadInput for data or settings that cannot be used, TooFewRows when the calibration rows
    cannot support the alarm rate (before training starts), TrainingDiverged, ParityFailed.
    """
    models, run_dir = Path(config.models), Path(config.runs) / check_name(config.name)
    check_range("seed", config.seed, 0, 2**32 - 1)
    models.mkdir(parents=True, exist_ok=True)  # before any time is spent

    torch.set_num_threads(config.fit.threads)

    # 1. Read the data and give every row its role.
    prepared = prepare(Path(config.data) if config.data else None, config.options, seed=config.seed)
    columns = describe(prepared.input) if isinstance(prepared.input, TableInput) else []
    for line in (*columns, *prepared.notes):
        say(line)
    say("rows: " + ", ".join(f"{role} {n:,}" for role, n in prepared.split_rows.items()))
    _check_alarm_rate(config, n=prepared.split_rows["calibration"], say=say)

    # 2. Learn what normal looks like.
    detector, features, fitted = _fit(config, prepared, run_dir)
    if not fitted.is_main:
        return None
    say(
        f"fit: {len(fitted.history)} epochs, best {fitted.best_epoch}, "
        f"validation loss {fitted.history[-1].get('val_loss', float('nan')):.4g}"
    )
    raw_train = torch.from_numpy(prepared.x[prepared.roles.train])
    early_stop = torch.from_numpy(prepared.x[prepared.roles.early_stop])
    graph = ScoringGraph(features, detector.fit_readout(features(raw_train)), early_stop)

    # 3. Export, calibrate on what will be served, evaluate, publish: all of it or nothing.
    with writing_bundle(models, config.name) as folder:
        example = raw_train[:2]
        write_onnx(graph, example, folder / ONNX)
        write_torchscript(graph, example, folder / TORCHSCRIPT)
        calibration_rows = prepared.x[prepared.roles.calibration]
        decision, calibration = calibrate(
            onnx_scores(folder / ONNX, calibration_rows),
            alarm_rate=config.alarm_rate,
            confidence=config.confidence,
        )
        np.save(folder / CALIBRATION, calibration, allow_pickle=False)
        parity = check_parity(
            graph,
            onnx=folder / ONNX,
            torchscript=folder / TORCHSCRIPT,
            x=prepared.x[_parity_rows(prepared)],
            scale=decision.scale,
        )
        say(f"parity: onnx {parity.onnx:.1e}, torchscript {parity.torchscript:.1e} of the scale")
        assessment = assess(
            folder / ONNX,
            decision=decision,
            calibration=calibration,
            prepared=prepared,
            seed=config.seed,
        )
        manifest = Manifest(
            name=config.name,
            detector=config.detector,
            readout=detector.readout,
            input=prepared.input,
            outputs=_outputs(prepared),
            decision=decision,
            metrics=assessment.metrics,
            provenance=_provenance(config, prepared),
            parity=parity,
        )
        inputs = report_inputs(
            assessment,
            manifest=manifest,
            prepared=prepared,
            onnx=folder / ONNX,
            history=fitted.history,
        )
        write_report(folder / REPORT, inputs)
        number = publish(folder, manifest)
    forget(run_dir)
    return Trained(config.name, number, models / config.name / str(number), assessment)


def _fit(
    config: TrainConfig, prepared: Prepared, run_dir: Path
) -> tuple[Any, ImageFeatures | TableFeatures, Fitted]:
    roles, spec = prepared.roles, prepared.input
    if isinstance(spec, ImageInput):
        features: ImageFeatures | TableFeatures = ImageFeatures()
        columns = 0
    else:
        features = TableFeatures(spec, prepared.x[roles.train])
        columns = len(spec.columns)
    train_rows = features(torch.from_numpy(prepared.x[roles.train]))
    torch.manual_seed(config.seed)  # the initial weights are part of what the seed decides
    detector = DETECTORS[config.detector](
        getattr(config, config.detector), shape=train_rows.shape[1:], columns=columns
    )
    fitted = fit(
        detector,
        train=train_rows,
        early_stop=features(torch.from_numpy(prepared.x[roles.early_stop])),
        config=config.fit,
        trainer=config.trainer,
        run_dir=run_dir,
        fingerprint=_fingerprint(config, prepared),
        seed=config.seed,
        resume=config.resume,
    )
    return detector, features, fitted


def _check_alarm_rate(config: TrainConfig, *, n: int, say: Say) -> None:
    """Nothing; refuses a rate that n calibration rows cannot support before time is spent."""
    if config.alarm_rate is None:
        rate = smallest_alarm_rate(n, config.confidence)
        say(f"alarm rate: {rate:.3g} (none was asked for; {n:,} calibration rows)")
        return
    if not 0 < config.alarm_rate < 1:
        raise BadInput(f"alarm_rate must lie between 0 and 1, got {config.alarm_rate}")
    need = rows_needed(config.alarm_rate, config.confidence)
    if n < need:
        raise TooFewRows(
            f"alarm rate {config.alarm_rate:g} needs >= {need} calibration rows, got {n}; raise "
            "the rate, add normal rows or raise --calibration-share"
        )


def _parity_rows(prepared: Prepared) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Up to 2,000 rows of every kind, spread over the whole set."""
    n = len(prepared.x)
    return np.unique(np.linspace(0, n - 1, min(n, 2_000)).astype(np.int64))


def _outputs(prepared: Prepared) -> tuple[Output, ...]:
    return (
        Output(name="score", shape=(-1,)),
        Output(name="reconstruction", shape=(-1, *prepared.x.shape[1:])),
    )


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The settings as plain JSON values."""
    settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return settings


def _fingerprint(config: TrainConfig, prepared: Prepared) -> str:
    settings = {k: v for k, v in _settings(config).items() if k not in ("resume", "models", "runs")}
    text = json.dumps([settings, prepared.data_hash, prepared.split_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _provenance(config: TrainConfig, prepared: Prepared) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=config.recipe,
        seed=config.seed,
        config=_settings(config),
        data_hash=prepared.data_hash,
        split_hash=prepared.split_hash,
        split_rows=prepared.split_rows,
        duplicate_rows_removed=prepared.duplicate_rows_removed,
        git_commit=_git_commit(),
        libraries={name: found for name in LIBRARIES if (found := _version(name))},
    )


def _version(library: str) -> str | None:
    try:
        return version(library)
    except ModuleNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the source tree this code runs from; None when it runs from an installed wheel."""
    git = shutil.which("git")
    if git is None or "site-packages" in __file__:
        return None
    found = subprocess.run(  # noqa: S603  fixed arguments, no shell
        [git, "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    logging.getLogger(__name__).debug("git says %s", found)
    return found.stdout.strip() or None
