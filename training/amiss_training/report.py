"""The report of one detector: one HTML page that stands alone, its figures and its figures' data.

report.html  report.json  roc.png ...  examples/most_anomalous_0.png|json  examples/most_normal_0...
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from amiss_export.bundle import Manifest, TableInput
from amiss_export.errors import BadInput
from amiss_training import plots
from amiss_training.examples import (
    EXTREMES,
    deviating_cells,
    extremes,
    write_image_examples,
    write_table_examples,
)
from amiss_training.peers import Peer
from amiss_training.wording import TITLES, peer_verdict, readable, verdict

EXAMPLES = 5
CELLS = 6  # columns shown of an example row
CLASSES = 50  # rows of the table by class
OURS = "this detector"


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of; the arrays describe the m test rows.

    metrics: of `evaluate`; peers: of `peer_table`; peer_scores: of `peer_scores`. score (m,)
    float32, is_anomaly (m,) the truth, label (m,) and names (m,) texts, x the raw inputs of the
    graph, uint8 (m, c, h, w) or float32 (m, d). reconstruct maps such inputs to what the detector
    expected, in raw units. history: one dict per epoch, any numeric keys. notes: lines to print.
    """

    title: str
    manifest: Manifest
    metrics: dict[str, Any]
    peers: Mapping[str, Mapping[str, Any]]
    peer_scores: Mapping[str, Peer]
    score: NDArray[np.float32]
    is_anomaly: NDArray[np.bool_]
    label: Sequence[str] | NDArray[Any]
    names: Sequence[str] | NDArray[Any]
    x: NDArray[Any]
    reconstruct: Callable[[NDArray[Any]], NDArray[Any]]
    history: Sequence[Mapping[str, Any]] = field(default_factory=list)
    notes: Sequence[str] = ()


def write_report(folder: Path, inputs: ReportInputs) -> None:
    """Writes report.html, report.json, the PNGs and examples/ into the folder, made if absent.

    Raises BadInput when the arrays differ in length.
    """
    lengths = {len(a) for a in (inputs.score, inputs.is_anomaly, inputs.label, inputs.names)}
    if lengths != {len(inputs.x)} or len(inputs.x) == 0:
        raise BadInput(
            f"a report needs score, is_anomaly, label, names and x of equal length >= 1, "
            f"got lengths {sorted({*lengths, len(inputs.x)})}"
        )
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    chosen = extremes(inputs.score, count=EXAMPLES)
    expected = {name: inputs.reconstruct(inputs.x[rows]) for name, rows in chosen.items()}
    figures = _figures(inputs, chosen, expected)
    for name, pngs in figures.items():
        (folder / f"{name}.png").write_bytes(pngs["light"])
    for name, rows in chosen.items():
        _write_examples(folder / "examples", inputs, name, inputs.x[rows])
    summary = _summary(inputs)
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    page = _template().render(
        inputs=inputs,
        **summary,
        oracle=inputs.metrics["oracle_best_f1"],
        peer_titles=TITLES,
        classes=_classes(inputs.metrics["per_class"]),
        classes_left_out=max(0, len(inputs.metrics["per_class"]) - CLASSES),
        figures={name: _data_uris(pngs) for name, pngs in figures.items()},
        examples={name: _examples(inputs, chosen[name], expected[name]) for name in EXTREMES},
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _summary(inputs: ReportInputs) -> dict[str, Any]:
    manifest = inputs.manifest
    beaten, comparison = peer_verdict(inputs.metrics["auroc"], inputs.peers)
    return {
        "title": inputs.title,
        "name": manifest.name,
        "detector": manifest.detector,
        "readout": manifest.readout,
        "verdict": verdict(
            inputs.metrics, noun="row" if manifest.input.kind == "table" else "image"
        ),
        "beaten_by_a_peer": beaten,
        "comparison": comparison,
        "decision": manifest.decision.model_dump(mode="json"),
        "metrics": inputs.metrics,
        "peers": {name: dict(peer) for name, peer in inputs.peers.items()},
        "provenance": manifest.provenance.model_dump(mode="json"),
        "notes": list(inputs.notes),
    }


def _figures(
    inputs: ReportInputs,
    chosen: Mapping[str, NDArray[np.intp]],
    expected: Mapping[str, NDArray[Any]],
) -> dict[str, dict[str, bytes]]:
    """{figure: {scheme: png}}; a figure the test rows cannot support is absent."""
    truth, metrics, decision = inputs.is_anomaly, inputs.metrics, inputs.manifest.decision
    draw: dict[str, Callable[..., bytes | None]] = {
        "score_histogram": partial(
            plots.histogram_png,
            inputs.score,
            truth,
            threshold=decision.threshold,
            median=decision.median,
        ),
        "training_curves": partial(plots.history_png, inputs.history),
    }
    if metrics["auroc"] is not None:
        curves = _curves(inputs)
        recall, precision = metrics["recall"], metrics["precision"]
        at_recall = None if precision is None else (recall, precision)
        draw |= {
            "roc": partial(
                plots.roc_png, curves, truth, operating_point=(metrics["false_alarm_share"], recall)
            ),
            "precision_recall": partial(
                plots.precision_recall_png, curves, truth, operating_point=at_recall
            ),
        }
    drawn = {
        name: {"light": make(theme=plots.LIGHT), "dark": make(theme=plots.DARK)}
        for name, make in draw.items()
    }
    figures = {
        name: {scheme: png for scheme, png in pngs.items() if png is not None}
        for name, pngs in drawn.items()
        if pngs["light"] is not None
    }
    return figures | _grids(inputs, chosen, expected)


def _grids(
    inputs: ReportInputs,
    chosen: Mapping[str, NDArray[np.intp]],
    expected: Mapping[str, NDArray[Any]],
) -> dict[str, dict[str, bytes]]:
    """The image grids, one version for both schemes: photographs weigh too much to come twice."""
    if inputs.manifest.input.kind != "image":
        return {}
    brightest = max(
        float(plots.absolute_difference(inputs.x[rows], expected[name]).max())
        for name, rows in chosen.items()
    )
    return {
        name: {
            "light": plots.image_grid_png(
                inputs.x[rows], expected[name], inputs.score[rows], brightest=brightest
            )
        }
        for name, rows in chosen.items()
    }


def _curves(inputs: ReportInputs) -> dict[str, NDArray[Any]]:
    curves: dict[str, NDArray[Any]] = {OURS: inputs.score}
    for name, peer in inputs.peer_scores.items():
        if peer.scores is not None:
            curves[TITLES.get(name, name)] = peer.scores
    return curves


def _write_examples(folder: Path, inputs: ReportInputs, stem: str, rows: NDArray[Any]) -> None:
    spec = inputs.manifest.input
    if isinstance(spec, TableInput):
        write_table_examples(folder, rows, spec, stem=stem)
    else:
        write_image_examples(folder, rows, stem=stem)


def _examples(
    inputs: ReportInputs, rows: NDArray[np.intp], expected: NDArray[Any]
) -> list[dict[str, Any]]:
    spec = inputs.manifest.input
    cells: list[Any] = [None] * len(rows)
    if isinstance(spec, TableInput):
        usual = inputs.x if inputs.is_anomaly.all() else inputs.x[~inputs.is_anomaly]
        cells = list(deviating_cells(inputs.x[rows], expected, spec, normals=usual, count=CELLS))
    return [
        {
            "name": str(inputs.names[row]),
            "label": str(inputs.label[row]),
            "is_anomaly": bool(inputs.is_anomaly[row]),
            "score": float(inputs.score[row]),
            "above": float(inputs.score[row]) > inputs.manifest.decision.threshold,
            "cells": cells[i],
        }
        for i, row in enumerate(rows)
    ]


def _classes(per_class: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The largest classes, normals first, then anomalies by the share that was flagged."""
    largest = sorted(per_class.items(), key=lambda item: -item[1]["n"])[:CLASSES]
    return sorted(largest, key=lambda item: (item[1]["n_anomalies"] > 0, -item[1]["flagged_share"]))


def _data_uris(pngs: Mapping[str, bytes]) -> dict[str, str]:
    return {
        scheme: "data:image/png;base64," + base64.b64encode(png).decode()
        for scheme, png in pngs.items()
    }


def _number(value: float | None) -> str:
    return "–" if value is None else readable(value)


def _fixed(value: float | None, places: int = 4) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def _percent(value: float | None, places: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{places}f} %"


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("amiss_training"),
        autoescape=True,  # column names, labels and file names are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "fixed": _fixed, "percent": _percent}
    return environment.get_template("report.html.j2")
