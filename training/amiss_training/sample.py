"""What a detector believes normal looks like: rows decoded from draws of its prior."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amiss_export.bundle import DECODER, Bundle, ImageInput, TableInput
from amiss_export.errors import BadInput
from amiss_export.onnx_runtime import onnxruntime
from amiss_training.checks import check_range
from amiss_training.examples import record

GAP = 2  # pixels between the images of a grid
SIDE = 64  # a smaller image is shown with its pixels repeated

Rows = NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """rows: by member, (count, ...) in the input's unit; an ensemble has several members."""

    input: ImageInput | TableInput
    rows: dict[str, Rows]


def sample(bundle: Bundle, *, count: int, seed: int) -> Samples:
    """`count` rows of each member, decoded from z ~ N(0, 1). Deterministic in seed.

    Members decode the same draws. Raises BadInput for a bundle without a decoder.
    """
    check_range("count", count, 1)
    check_range("seed", seed, 0, 2**32 - 1)
    if DECODER not in bundle.manifest.files:
        raise BadInput(
            f"{bundle.name}@{bundle.version} has no {DECODER}: it is older than `amiss sample`; "
            "train it again to draw from it"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        bundle.read(DECODER), options, providers=["CPUExecutionProvider"]
    )
    prior = session.get_inputs()[0]
    z = np.random.default_rng(seed).standard_normal((count, prior.shape[1]), dtype=np.float32)
    names = [output.name for output in session.get_outputs()]
    decoded = session.run(names, {prior.name: z})
    return Samples(bundle.manifest.input, dict(zip(names, decoded, strict=True)))


def write_samples(samples: Samples, path: Path) -> None:
    """Nothing; writes a PNG grid of images, or a CSV file of rows.

    An ensemble's members follow each other: block below block, or told apart by a column.
    Raises BadInput when the file's name says it is something else.
    """
    kind = ".png" if isinstance(samples.input, ImageInput) else ".csv"
    if path.suffix.lower() != kind:
        raise BadInput(f"--output must end in {kind} for this detector, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(samples.input, TableInput):
        _write_rows(samples.rows, samples.input, path)
        return
    blocks = [grid(np.rint(images).astype(np.uint8)) for images in samples.rows.values()]
    pixels = np.concatenate(blocks, axis=1)
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(path)


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images (n, c, h, w) in rows of ceil(sqrt(n)), (c, H, W), white around and between."""
    n, channels, height, width = images.shape
    factor = max(1, SIDE // height)
    magnified = images.repeat(factor, axis=2).repeat(factor, axis=3)
    across = math.ceil(math.sqrt(n))
    down = math.ceil(n / across)
    step_y, step_x = height * factor + GAP, width * factor + GAP
    pixels = np.full((channels, GAP + down * step_y, GAP + across * step_x), 255, dtype=np.uint8)
    for i, image in enumerate(magnified):
        top, left = GAP + i // across * step_y, GAP + i % across * step_x
        pixels[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    return pixels


def _write_rows(rows: dict[str, Rows], spec: TableInput, path: Path) -> None:
    """A header and a line for each row; with several members the first column names them."""
    columns = [column.name for column in spec.columns]
    member = "member"
    while member in columns:
        member += "_"
    names = [member] * (len(rows) > 1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, *columns])
        for name, part in rows.items():
            writer.writerows([*([name] * len(names)), *record(row, spec).values()] for row in part)
