"""The latent space as PNG bytes: one point for each test row, coloured by its label."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_training.plots import Theme, chart, legend, plain, png

NORMAL_MARKERS, ANOMALY_MARKERS = ("o", "s"), ("x", "+")
OTHER = "other"


def latent_png(
    codes: NDArray[np.float32],
    label: NDArray[Any],
    is_anomaly: NDArray[np.bool_],
    *,
    axis: str,
    theme: Theme,
) -> bytes:
    """Codes (p, 2) of rows with these labels; round points are normals, crosses anomalies.

    axis: what the two axes are. At most 10 labels are told apart, the rarest share one colour.
    """
    whole, axes = chart(theme, "Latent space", f"{axis} 1", f"{axis} 2", height=4.7)
    for j, (name, rows, anomalous) in enumerate(_groups(label, is_anomaly)):
        markers = ANOMALY_MARKERS if anomalous else NORMAL_MARKERS
        axes.scatter(
            codes[rows, 0],
            codes[rows, 1],
            s=16 if anomalous else 10,
            marker=markers[j // len(theme.series) % len(markers)],
            color=theme.series[j % len(theme.series)],
            alpha=0.7,
            linewidths=1 if anomalous else 0,
            label=name,
        )
    legend(whole, theme, columns=3)
    return png(whole)


def _groups(
    label: NDArray[Any], is_anomaly: NDArray[np.bool_]
) -> list[tuple[str, NDArray[np.intp], bool]]:
    """(name to draw, rows, are they anomalies), normals first, the largest labels by themselves."""
    names, counts = np.unique(label, return_counts=True)
    large = set(names[np.argsort(-counts, kind="stable")][:10].tolist())
    groups = []
    for anomalous in (False, True):
        for i, name in enumerate(names.tolist()):
            rows = np.flatnonzero((label == name) & (is_anomaly == anomalous))
            if name in large and len(rows):
                groups.append((plain(name, otherwise=f"class {i + 1}"), rows, anomalous))
        rest = np.flatnonzero(~np.isin(label, list(large)) & (is_anomaly == anomalous))
        if len(rest):
            groups.append((f"{OTHER} {'anomalies' if anomalous else 'normals'}", rest, anomalous))
    return groups
