"""The most anomalous and the most normal test rows, as files to send and as lines to read."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amiss_export.bundle import Column, TableInput
from amiss_export.decode import FIRST_CATEGORY, MISSING
from amiss_training.wording import readable

EXTREMES = ("most_anomalous", "most_normal")


@dataclass(frozen=True)
class Cell:
    """One column of one row: what was there, what the detector expected, how far apart.

    deviation is in standard deviations of the column among the test normals.
    """

    column: str
    value: str
    expected: str
    deviation: float


def extremes(score: NDArray[Any], *, count: int) -> dict[str, NDArray[np.intp]]:
    """Test rows of the highest and of the lowest scores, most extreme first; ties by position."""
    count = min(count, len(score))
    return {
        "most_anomalous": np.argsort(-score, kind="stable")[:count],
        "most_normal": np.argsort(score, kind="stable")[:count],
    }


def write_image_examples(folder: Path, images: NDArray[np.uint8], *, stem: str) -> None:
    """Writes the (k, c, h, w) images as STEM_0.png, STEM_1.png, ..., lossless."""
    for i, image in enumerate(images):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
        (folder / f"{stem}_{i}.png").write_bytes(buffer.getvalue())


def write_table_examples(
    folder: Path, rows: NDArray[np.float32], spec: TableInput, *, stem: str
) -> None:
    """Writes each row as STEM_0.json, ..., ready for `curl --data @FILE`."""
    for i, row in enumerate(rows):
        text = json.dumps(
            {"records": [record(row, spec)]}, indent=2, ensure_ascii=False, allow_nan=False
        )
        (folder / f"{stem}_{i}.json").write_text(text + "\n", encoding="utf-8")


def record(row: NDArray[np.float32], spec: TableInput) -> dict[str, Any]:
    """{column: value} that decodes to exactly this row (d,): null for missing, categories as text.

    A category the detector has never seen has no text of its own: it gets one it cannot know.
    """
    return {c.name: _json_value(row[j], c) for j, c in enumerate(spec.columns)}


def deviating_cells(
    rows: NDArray[np.float32],
    expected: NDArray[np.float32],
    spec: TableInput,
    *,
    normals: NDArray[np.float32],
    count: int,
) -> list[list[Cell]]:
    """For each row the `count` columns furthest from its reconstruction, furthest first.

    rows, expected: (k, d) in raw units, categories as codes. normals: (m, d) rows that say how
    much a column usually varies. A category counts as the 0/1 column of its value would: seen with
    frequency p, it is (1 - p) / sqrt(p (1 - p)) standard deviations off; so does a missing number.
    """
    deviation = np.stack(
        [
            _deviation(rows[:, j], expected[:, j], c, normals[:, j])
            for j, c in enumerate(spec.columns)
        ],
        axis=1,
    )
    order = np.argsort(-deviation, axis=1, kind="stable")[:, :count]
    return [
        [
            Cell(
                spec.columns[j].name,
                _text(rows[i, j], spec.columns[j]),
                _text(expected[i, j], spec.columns[j]),
                float(deviation[i, j]),
            )
            for j in order[i]
        ]
        for i in range(len(rows))
    ]


def sample_rows(
    rows: NDArray[np.float32], spec: TableInput, *, columns: int
) -> list[dict[str, str]]:
    """Each raw row (k, d) as {column: text}, of its first `columns` columns."""
    shown = spec.columns[:columns]
    return [{c.name: _text(row[j], c) for j, c in enumerate(shown)} for row in rows]


def _deviation(
    values: NDArray[np.float32],
    expected: NDArray[np.float32],
    column: Column,
    normals: NDArray[np.float32],
) -> NDArray[np.float64]:
    if column.kind == "category":
        surprise = np.array([_indicator_deviation(normals == v) for v in values])
        return np.where(np.round(expected) == values, 0.0, surprise)
    known = normals[np.isfinite(normals)].astype(np.float64)
    spread = float(known.std()) if len(known) else 0.0
    if spread == 0:  # a column that never varies: measure in its own size
        spread = max(1.0, float(np.abs(known).max(initial=0)))
    off = np.nan_to_num(np.abs(values.astype(np.float64) - expected) / spread)
    return np.where(np.isnan(values), _indicator_deviation(np.isnan(normals)), off)


def _indicator_deviation(seen: NDArray[np.bool_]) -> float:
    p = (seen.sum() + 1) / (len(seen) + 2)
    return float(np.sqrt((1 - p) / p))


def _text(value: np.float32, column: Column) -> str:
    if column.kind == "number":
        return "missing" if np.isnan(value) else readable(float(value))
    code = round(float(value))
    if code == MISSING:
        return "missing"
    known = 0 <= code - FIRST_CATEGORY < len(column.categories)
    return column.categories[code - FIRST_CATEGORY] if known else "never seen"


def _json_value(value: np.float32, column: Column) -> float | str | None:
    if column.kind == "number":
        return None if np.isnan(value) else float(str(value))  # 0.1, not 0.10000000149
    code = int(value)
    if code == MISSING:
        return None
    if code >= FIRST_CATEGORY:
        return column.categories[code - FIRST_CATEGORY]
    unknown = "never seen"
    while unknown in column.categories:
        unknown += "_"
    return unknown
