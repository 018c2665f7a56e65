"""Figures of scores and losses as PNG bytes: ROC, precision-recall, histogram, CDF, curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from amiss_training.plots import DASHES, Theme, chart, figure, legend, png, style

Bools = NDArray[np.bool_]
Curves = Mapping[str, NDArray[Any]]
Panel = dict[str, tuple[list[float], list[float]]]


def roc_png(
    curves: Curves, is_anomaly: Bools, *, operating_point: tuple[float, float], theme: Theme
) -> bytes:
    """ROC of each named score (m,), ours first; a ring marks (false alarms, recall) as stored."""
    whole, axes = chart(theme, "ROC", "false alarm rate", "recall", height=4.7)
    axes.plot([0, 1], [0, 1], color=theme.grid, linewidth=1)
    for i, (name, score) in enumerate(curves.items()):
        fpr, tpr, _ = roc_curve(is_anomaly, score)
        _line(axes, fpr, tpr, name=name, i=i, theme=theme)
    _mark(axes, *operating_point, theme)
    _unit_square(axes)
    legend(whole, theme)
    return png(whole)


def precision_recall_png(
    curves: Curves,
    is_anomaly: Bools,
    *,
    operating_point: tuple[float, float] | None,
    theme: Theme,
) -> bytes:
    """Precision over recall of each named score; a ring marks (recall, precision) as stored."""
    whole, axes = chart(theme, "Precision and recall", "recall", "precision", height=4.7)
    axes.axhline(float(is_anomaly.mean()), color=theme.grid, linewidth=1)
    for i, (name, score) in enumerate(curves.items()):
        precision, recall, _ = precision_recall_curve(is_anomaly, score)
        _line(axes, recall, precision, name=name, i=i, theme=theme)
    if operating_point:
        _mark(axes, *operating_point, theme)
    _unit_square(axes)
    legend(whole, theme)
    return png(whole)


def histogram_png(
    score: NDArray[Any], is_anomaly: Bools, *, threshold: float, median: float, theme: Theme
) -> bytes:
    """Test normals and anomalies by score, with the threshold; logarithmic where it must be."""
    whole, axes = chart(theme, "Scores of the test rows", "score", "rows", height=3.9)
    edges = _stretch(axes, score.astype(np.float64), threshold, median)
    heights = []
    for name, values, color, dash in _kinds(score, is_anomaly, theme):
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
    legend(whole, theme, columns=3)
    return png(whole)


def cdf_png(
    score: NDArray[Any], is_anomaly: Bools, *, threshold: float, median: float, theme: Theme
) -> bytes:
    """Share of test normals, and of anomalies, that score at most so much; with the threshold."""
    whole, axes = chart(theme, "Share of rows up to a score", "score", "share", height=3.9)
    edges = _stretch(axes, score.astype(np.float64), threshold, median)
    for name, values, color, dash in _kinds(score, is_anomaly, theme):
        ordered = np.concatenate([edges[:1], np.sort(values), edges[-1:]])
        share = np.concatenate([[0], np.arange(1, len(values) + 1) / len(values), [1]])
        axes.step(
            ordered, share, where="post", color=color, linestyle=dash, linewidth=1.8, label=name
        )
    axes.set_ylim(-0.01, 1.02)
    axes.axvline(threshold, color=theme.ink, linewidth=1.4, linestyle=":", label="threshold")
    legend(whole, theme, columns=3)
    return png(whole)


def history_png(history: Sequence[Mapping[str, Any]], *, theme: Theme) -> bytes | None:
    """Training curves of one detector, a panel for each term logged; None when there is none.

    train_loss and val_loss share the panel 'loss'. Any other numeric key has its own.
    """
    panels = _panels(history)
    if not panels:
        return None
    whole = figure(theme, width=4.6, height=1.8 * len(panels) + 0.6)
    kinds: dict[str, Any] = {}
    for i, (title, lines) in enumerate(panels.items()):
        axes = whole.add_subplot(len(panels), 1, i + 1)
        last = i == len(panels) - 1
        style(axes, theme, title.replace("_", " "), "epoch" if last else "", "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for kind, (epochs, values) in lines.items():
            j = 1 if kind == "validation" else 0
            marker = "o" if len(values) == 1 else ""
            kinds[kind], *_ = axes.plot(
                epochs,
                values,
                color=theme.series[j],
                linestyle=DASHES[j],
                linewidth=1.8,
                marker=marker,
            )
    for kind in filter(None, kinds):  # one legend for all panels, below them
        kinds[kind].set_label(kind)
    legend(whole, theme)
    return png(whole)


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


def _kinds(
    score: NDArray[Any], is_anomaly: Bools, theme: Theme
) -> list[tuple[str, NDArray[Any], str, str]]:
    """(name, scores, colour, dash) of the normals and of the anomalies, where there are any."""
    kinds = [
        ("normals", score[~is_anomaly], theme.normal, "-"),
        ("anomalies", score[is_anomaly], theme.anomaly, "--"),
    ]
    return [kind for kind in kinds if len(kind[1])]


def _panels(history: Sequence[Mapping[str, Any]]) -> dict[str, Panel]:
    """{panel: {kind: (epochs, values)}} of every finite number in the history but the epoch."""
    panels: dict[str, Panel] = {}
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
