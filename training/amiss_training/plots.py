"""The report's figures as PNG bytes. No pyplot, no global state: safe in any thread.

Colours are Okabe & Ito's, which colour-blind readers can tell apart; dashes repeat the message.
No text from the data is drawn: a file name may hold a glyph or a formula matplotlib cannot set.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import (
    precision_recall_curve,
    roc_curve,
)

from amiss_training.wording import readable

DPI = 150
GRID_DPI = 110
PALETTE_ABOVE_BYTES = 150_000
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))

Bools = NDArray[np.bool_]
Curves = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Theme:
    """Colours of one scheme; `series` starts with ours."""

    paper: str
    ink: str
    grid: str
    normal: str
    anomaly: str
    series: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1f24",
    grid="#d9dde2",
    normal="#0072b2",
    anomaly="#d55e00",
    series=("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#6e7681"),
)
DARK = Theme(
    paper="#171b21",
    ink="#e6e9ed",
    grid="#3a414a",
    normal="#56b4e9",
    anomaly="#f0803c",
    series=("#56b4e9", "#e69f00", "#2fc79a", "#f0803c", "#e39ac6", "#a3abb5"),
)


def roc_png(
    curves: Curves, is_anomaly: Bools, *, operating_point: tuple[float, float], theme: Theme
) -> bytes:
    """ROC of each named score (m,), ours first; a ring marks (false alarms, recall) as stored."""
    figure, axes = _chart(theme, "ROC", "false alarm rate", "recall", height=4.7)
    axes.plot([0, 1], [0, 1], color=theme.grid, linewidth=1)
    for i, (name, score) in enumerate(curves.items()):
        fpr, tpr, _ = roc_curve(is_anomaly, score)
        _line(axes, fpr, tpr, name=name, i=i, theme=theme)
    _mark(axes, *operating_point, theme)
    _unit_square(axes)
    _legend(figure, theme)
    return png(figure)


def precision_recall_png(
    curves: Curves,
    is_anomaly: Bools,
    *,
    operating_point: tuple[float, float] | None,
    theme: Theme,
) -> bytes:
    """Precision over recall of each named score; a ring marks (recall, precision) as stored."""
    figure, axes = _chart(theme, "Precision and recall", "recall", "precision", height=4.7)
    axes.axhline(float(is_anomaly.mean()), color=theme.grid, linewidth=1)
    for i, (name, score) in enumerate(curves.items()):
        precision, recall, _ = precision_recall_curve(is_anomaly, score)
        _line(axes, recall, precision, name=name, i=i, theme=theme)
    if operating_point:
        _mark(axes, *operating_point, theme)
    _unit_square(axes)
    _legend(figure, theme)
    return png(figure)


def histogram_png(
    score: NDArray[Any], is_anomaly: Bools, *, threshold: float, median: float, theme: Theme
) -> bytes:
    """Test normals and anomalies by score, with the threshold; logarithmic where it must be."""
    figure, axes = _chart(theme, "Scores of the test rows", "score", "rows", height=3.9)
    edges = _stretch(axes, score.astype(np.float64), threshold, median)
    groups = {
        "normals": (score[~is_anomaly], theme.normal, "-"),
        "anomalies": (score[is_anomaly], theme.anomaly, "--"),
    }
    heights = []
    for name, (values, color, dash) in groups.items():
        if not len(values):
            continue
        counts, _ = np.histogram(values, edges)
        heights.append(counts)
        axes.stairs(counts, edges, fill=True, color=color, alpha=0.3)
        axes.stairs(counts, edges, color=color, linewidth=1.6, linestyle=dash, label=name)
    tallest = np.concatenate(heights)
    if tallest.max() > 50 * tallest[tallest > 0].min():
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(bottom=0.7)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.axvline(threshold, color=theme.ink, linewidth=1.4, linestyle=":", label="threshold")
    _legend(figure, theme, columns=3)
    return png(figure)


def history_png(history: Sequence[Mapping[str, Any]], *, theme: Theme) -> bytes | None:
    """Training curves, one panel for each figure in the history; None when it holds none.

    train_loss and val_loss share the panel 'loss'. Any other numeric key has its own.
    """
    panels = _panels(history)
    if not panels:
        return None
    figure = _figure(theme, width=4.6, height=2 * len(panels) + 0.4)
    for i, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(len(panels), 1, i + 1)
        last = i == len(panels) - 1
        _style(axes, theme, title.replace("_", " "), "epoch" if last else "", "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for kind, (epochs, values) in lines.items():
            j = 1 if kind == "validation" else 0
            marker = "o" if len(values) == 1 else ""
            axes.plot(
                epochs,
                values,
                color=theme.series[j],
                linestyle=DASHES[j],
                linewidth=1.8,
                marker=marker,
                label=kind,
            )
        if len(lines) > 1:
            axes.legend(loc="upper right", frameon=False, labelcolor=theme.ink, fontsize=9)
    return png(figure)


def image_grid_png(
    images: NDArray[np.uint8],
    reconstructions: NDArray[Any],
    score: NDArray[Any],
    *,
    brightest: float,
) -> bytes:
    """A row per image: input, reconstruction, absolute difference; numbered, with the score.

    images: (k, c, h, w) uint8, reconstructions the same shape in 0..255. `brightest` is the
    difference drawn brightest, so that two grids can share one scale. Drawn on a dark ground, which
    suits pictures in either scheme.
    """
    k, theme = len(images), DARK
    height = 1.5 * images.shape[2] / images.shape[3]
    figure = _figure(theme, width=4.6, height=k * (height + 0.3) + 0.3, dpi=GRID_DPI)
    grid = figure.subplots(k, 3, squeeze=False)
    difference = absolute_difference(images, reconstructions)
    for i in range(k):
        for axes in grid[i]:
            axes.set_axis_off()
        _show(grid[i, 0], images[i])
        _show(grid[i, 1], np.clip(reconstructions[i], 0, 255).astype(np.uint8))
        grid[i, 2].imshow(difference[i], cmap="viridis", vmin=0, vmax=max(brightest, 1e-9))
        grid[i, 0].set_title(
            f"#{i + 1}  score {readable(score[i])}", loc="left", fontsize=9, color=theme.ink
        )
    grid[0, 1].set_title("reconstruction", fontsize=9, color=theme.ink)
    grid[0, 2].set_title("difference", fontsize=9, color=theme.ink)
    return png(figure)


def absolute_difference(images: NDArray[np.uint8], reconstructions: NDArray[Any]) -> NDArray[Any]:
    """Mean over the channels of |image - reconstruction|, (k, h, w), in 0..255."""
    wide = images.astype(np.float32) - reconstructions.astype(np.float32)
    return np.asarray(np.abs(wide).mean(axis=1))


def png(figure: Figure) -> bytes:
    """The figure as PNG; a large one (photographs) is reduced to 256 colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    image = Image.open(buffer).convert("RGB")
    encoded = _encode(image)
    return encoded if len(encoded) <= PALETTE_ABOVE_BYTES else _encode(image.quantize(256))


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _figure(theme: Theme, *, width: float, height: float, dpi: int = DPI) -> Figure:
    return Figure(figsize=(width, height), dpi=dpi, facecolor=theme.paper, layout="constrained")


def _chart(theme: Theme, title: str, x: str, y: str, *, height: float) -> tuple[Figure, Axes]:
    figure = _figure(theme, width=4.6, height=height)
    axes = figure.add_subplot()
    _style(axes, theme, title, x, y)
    return figure, axes


def _style(axes: Axes, theme: Theme, title: str, x: str, y: str) -> None:
    axes.set_facecolor(theme.paper)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=theme.ink)
    axes.set_xlabel(x, color=theme.ink)
    axes.set_ylabel(y, color=theme.ink)
    axes.tick_params(which="both", colors=theme.ink, labelsize=9)
    axes.grid(color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)


def _line(axes: Axes, x: NDArray[Any], y: NDArray[Any], *, name: str, i: int, theme: Theme) -> None:
    axes.plot(
        x,
        y,
        color=theme.series[i % len(theme.series)],
        linestyle=DASHES[i % len(DASHES)],
        linewidth=2.6 if i == 0 else 1.4,
        zorder=3 if i == 0 else 2,
        label=name,
    )


def _mark(axes: Axes, x: float, y: float, theme: Theme) -> None:
    axes.plot(
        [x],
        [y],
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgewidth=1.8,
        color=theme.ink,
        linestyle="none",
        zorder=4,
        clip_on=False,
        label="stored threshold",
    )


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)


def _legend(figure: Figure, theme: Theme, *, columns: int = 2) -> None:
    figure.legend(
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=8.5,
    )


def _stretch(axes: Axes, score: NDArray[Any], threshold: float, median: float) -> NDArray[Any]:
    """Bin edges over the scores; the axis turns logarithmic where anomalies lie far beyond."""
    low, high = min(float(score.min()), threshold), max(float(score.max()), threshold)
    near = max(threshold - median, 1e-12)
    if high - threshold > 30 * near or median - low > 30 * near:
        linear = 2 * max(abs(threshold), abs(median), near)
        decades = np.log10(max(abs(low), abs(high), linear) / linear)
        axes.set_xscale("symlog", linthresh=linear, linscale=max(0.5, 0.7 * decades))
        low = min(low, 0.0)
    transform = axes.xaxis.get_transform()
    ends = transform.transform(np.array([low, high]))
    if ends[1] <= ends[0]:
        ends = np.array([ends[0] - 0.5, ends[0] + 0.5])
    edges = transform.inverted().transform(np.linspace(ends[0], ends[1], 61))
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return np.asarray(edges)


def _panels(
    history: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """{panel: {kind: (epochs, values)}} of every finite number in the history but the epoch."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for i, record in enumerate(history):
        for key, value in record.items():
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if key in ("epoch", "step") or not number or not np.isfinite(float(value)):
                continue
            prefix, _, rest = key.partition("_")
            kind = {"train": "training", "val": "validation"}.get(prefix, "")
            panel = rest if kind and rest else key
            epochs, values = panels.setdefault(panel, {}).setdefault(kind, ([], []))
            epochs.append(float(record.get("epoch", i)))
            values.append(float(value))
    return panels


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    if len(image) == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(image.transpose(1, 2, 0))
