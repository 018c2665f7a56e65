"""A row's life up to the bundle: data, fit, export, calibrate, evaluate, report, publish."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amiss_export.bundle import (
    CALIBRATION,
    DECODER,
    ONNX,
    TORCHSCRIPT,
    Manifest,
    Output,
    TableInput,
    check_name,
)
from amiss_export.decision import calibrate, rows_needed, smallest_alarm_rate
from amiss_export.errors import BadInput, TooFewRows
from amiss_export.parity import check_parity, onnx_scores
from amiss_export.publish import publish, writing_bundle
from amiss_export.to_onnx import write_onnx
from amiss_export.to_torchscript import write_torchscript
from amiss_training.assess import Assessment, assess, report_inputs
from amiss_training.checks import check_range
from amiss_training.config import TrainConfig
from amiss_training.data import Prepared, describe, prepare
from amiss_training.decoder import write_decoder
from amiss_training.inspection import Inspection, inspect
from amiss_training.learn import Learned, forget_runs, learn, plans, untrained
from amiss_training.provenance import provenance
from amiss_training.report import write_report

Say = Callable[[str], None]
REPORT = "report"


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

    plans(config)  # and before the data are read

    # 1. Read the data and give every row its role.
    prepared = prepare(Path(config.data) if config.data else None, config.options, seed=config.seed)
    columns = describe(prepared.input) if isinstance(prepared.input, TableInput) else []
    for line in (*columns, *prepared.notes):
        say(line)
    say("rows: " + ", ".join(f"{role} {n:,}" for role, n in prepared.split_rows.items()))
    _check_alarm_rate(config, n=prepared.split_rows["calibration"], say=say)

    # 2. Learn what normal looks like.
    learned = learn(config, prepared, run_dir=run_dir)
    if not learned.is_main:
        return None
    for line in _fit_lines(learned):
        say(line)

    # 3. Export, calibrate on what will be served, evaluate, publish: all of it or nothing.
    with writing_bundle(models, config.name) as folder:
        example = torch.from_numpy(prepared.x[prepared.roles.train[:2]])
        write_onnx(learned.graph, example, folder / ONNX)
        write_torchscript(learned.graph, example, folder / TORCHSCRIPT)
        members = {member.name: member.detector for member in learned.members}
        write_decoder(members, learned.features, folder / DECODER)
        calibration_rows = prepared.x[prepared.roles.calibration]
        decision, calibration = calibrate(
            onnx_scores(folder / ONNX, calibration_rows),
            alarm_rate=config.alarm_rate,
            confidence=config.confidence,
        )
        np.save(folder / CALIBRATION, calibration, allow_pickle=False)
        parity = check_parity(
            learned.graph,
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
            untrained=_control(config, prepared),
            oracle_flag_share=config.options.oracle_flag_share,
        )
        manifest = Manifest(
            name=config.name,
            detector=config.detector,
            readout=learned.readout,
            input=prepared.input,
            outputs=_outputs(prepared),
            decision=decision,
            metrics=assessment.metrics,
            provenance=provenance(config, prepared),
            parity=parity,
        )
        inputs = report_inputs(
            assessment,
            manifest=manifest,
            prepared=prepared,
            onnx=folder / ONNX,
            histories={member.name: member.fitted.history for member in learned.members},
            inspections=_inspections(learned, prepared, seed=config.seed),
        )
        write_report(folder / REPORT, inputs)
        number = publish(folder, manifest)
    forget_runs(config, run_dir)
    return Trained(config.name, number, models / config.name / str(number), assessment)


def _fit_lines(learned: Learned) -> list[str]:
    """How each member's training went, a line each."""
    lines = []
    for member in learned.members:
        fitted = member.fitted
        lines.append(
            f"fit {member.name}: {len(fitted.history)} epochs, best {fitted.best_epoch}, "
            f"validation loss {fitted.history[-1].get('val_loss', float('nan')):.4g}"
        )
        if fitted.limit:
            lines.append(
                f"fit {member.name}: ended by {fitted.limit} while the loss was still falling; "
                "raise it for a better detector"
            )
    return lines


def _control(config: TrainConfig, prepared: Prepared) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores (m,) of the test rows by the untrained network under the same read-out."""
    graph, test = untrained(config, prepared), prepared.x[prepared.roles.test]
    with torch.no_grad():
        parts = [graph(part)[0] for part in torch.split(torch.from_numpy(test), 1_024)]
    return np.asarray(torch.cat(parts).numpy())


def _inspections(learned: Learned, prepared: Prepared, *, seed: int) -> dict[str, Inspection]:
    return {
        member.name: inspect(
            member.detector,
            learned.features,
            prepared,
            train=learned.train,
            early_stop=learned.early_stop,
            seed=seed,
        )
        for member in learned.members
    }


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
