"""The figures a person wants to know first, as lines of text."""

from collections.abc import Mapping
from typing import Any


def summary(metrics: Mapping[str, Any], peers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Our figures, each peer's, what the threshold promised and what was observed, warnings."""
    lines = [f"{'':18}{'AUROC':>8}{'AUPRC':>8}"]
    for name, row in {"this detector": metrics, **peers}.items():
        lines.append(f"{name.replace('_', ' '):18}{_figure(row['auroc'])}{_figure(row['auprc'])}")
    band = metrics["band_99"]
    if band:
        share = band["observed"] / band["n_normals"]
        lines.append(
            f"threshold {metrics['threshold']['threshold']:.4g}: {band['observed']} of "
            f"{band['n_normals']} test normals flagged ({share:.2%}); 99 % band "
            f"{band['low']}..{band['high']}"
        )
    return [*lines, *(f"warning: {text}" for text in metrics["warnings"])]


def _figure(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.4f}"
