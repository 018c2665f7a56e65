"""The report of one detector: one HTML page that stands alone, its figures and its figures' data.

report.html  report.json  roc.png ...  examples/most_anomalous_0.png|json  examples/most_normal_0...
report.json holds every number of the page and the losses of every epoch, but no picture.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from amiss_export.bundle import TableInput
from amiss_export.errors import BadInput
from amiss_training.examples import (
    EXTREMES,
    deviating_cells,
    extremes,
    sample_rows,
    write_image_examples,
    write_table_examples,
)
from amiss_training.report_figures import OF_MEMBERS, draw, figure_name
from amiss_training.report_inputs import ReportInputs
from amiss_training.wording import TITLES, peer_verdict, readable, verdict

EXAMPLES = 5
CELLS = 6  # columns shown of an example row
CLASSES = 50  # rows of the table by class
SAMPLE_COLUMNS = 8  # columns shown of rows decoded from the prior

__all__ = ["ReportInputs", "write_report"]


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
    figures = draw(inputs, chosen, expected)
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
        members=_members(inputs),
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
        "histories": {name: _finite(rows) for name, rows in inputs.histories.items()},
        "inspections": {name: found.as_json() for name, found in inputs.inspections.items()},
    }


def _members(inputs: ReportInputs) -> list[dict[str, Any]]:
    """What the page shows of each member: its name, its inspection, its figures and samples."""
    spec = inputs.manifest.input
    members = []
    for name in {**inputs.histories, **inputs.inspections}:
        found = inputs.inspections.get(name)
        rows: list[dict[str, str]] = []
        if found is not None and isinstance(spec, TableInput):
            rows = sample_rows(found.samples, spec, columns=SAMPLE_COLUMNS)
        members.append(
            {
                "name": name,
                "inspection": found,
                "figures": {kind: figure_name(kind, name) for kind in OF_MEMBERS},
                "samples": rows,
            }
        )
    return members


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


def _finite(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The numbers of each epoch; one that is not finite has no place in JSON."""
    return [
        {
            key: float(value)
            for key, value in row.items()
            if isinstance(value, (int, float, np.number)) and np.isfinite(float(value))
        }
        for row in history
    ]


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
