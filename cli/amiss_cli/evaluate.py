"""`amiss evaluate`: how good a bundle is on labelled data."""

import json
import sys
from pathlib import Path
from typing import Any

from amiss_cli.options import OptionParser
from amiss_cli.summary import summary
from amiss_export.bundle import resolve_version, split_reference
from amiss_training.evaluate_bundle import evaluate_bundle

OVERRIDES = ("label_column", "normal_class", "anomaly_class")


def main(argv: list[str]) -> int:
    """Prints the figures; writes the JSON and the report when asked to."""
    values = _parser().parse(argv)
    name, wanted = split_reference(values["reference"])
    models = Path(values["models"])
    evaluated = evaluate_bundle(
        models,
        name,
        resolve_version(models, name, wanted),
        data=Path(values["data"]) if values["data"] else None,
        overrides={key: values[key] for key in OVERRIDES if values[key] is not None},
        report=Path(values["report"]) if values["report"] else None,
    )
    print(f"{evaluated.reference} on {evaluated.rows}", file=sys.stderr)
    for line in summary(evaluated.metrics, evaluated.peers):
        print(line)
    if values["json"]:
        _write_json(Path(values["json"]), evaluated.as_json())
    return 0


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="amiss evaluate",
        description="Measure a bundle on labelled data. Given the data it was trained on, the "
        "held-out test rows are measured, beside simple peers; other data is measured whole.",
    )
    parser.add_argument("reference", type=str, help="NAME, NAME@VERSION or NAME@LABEL")
    parser.add_argument("--data", type=str | None, help="table file, IDX/NPZ file or folder")
    parser.add_argument("--models", type=str, default="models", help="folder of bundles")
    parser.add_argument("--label_column", type=str | None, help="default: as in training")
    parser.add_argument("--normal_class", type=str | None, help="default: as in training")
    parser.add_argument("--anomaly_class", type=str | None, help="default: as in training")
    parser.add_argument("--json", type=str | None, help="file to write the figures to")
    parser.add_argument("--report", type=str | None, help="folder to write report.html to")
    return parser


def _write_json(path: Path, figures: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(figures, indent=2))
    part.replace(path)
