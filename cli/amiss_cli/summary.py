"""The figures a person wants to know first, as lines of text."""

from collections.abc import Mapping
from typing import Any


def summary(metrics: Mapping[str, Any], peers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Our figures, each peer's and how far ours is from it, what the threshold does, warnings.

    Every precision, recall and F1 comes with how its threshold was chosen.
    """
    compared = "  ours less theirs, 95 % interval" if peers else ""
    lines = [
        f"{'':18}{'AUROC':>8}{'AUPRC':>8}{compared}",
        f"{'this detector':18}{_figure(metrics['auroc'])}{_figure(metrics['auprc'])}",
        *(_peer(name, row) for name, row in peers.items()),
        _at_threshold("stored threshold", metrics, metrics["threshold_chosen_by"]),
    ]
    top = metrics["oracle_top_share"]
    if top:
        lines.append(_at_threshold("top scores", top, top["threshold_chosen_by"]))
    band = metrics["band_99"]
    if band:
        share = band["observed"] / band["n_normals"]
        lines.append(
            f"threshold {metrics['threshold']['threshold']:.4g}: {band['observed']} of "
            f"{band['n_normals']} test normals flagged ({share:.2%}); 99 % band "
            f"{band['low']}..{band['high']}"
        )
    return [*lines, *(f"warning: {text}" for text in metrics["warnings"])]


def _peer(name: str, row: Mapping[str, Any]) -> str:
    line = f"{name.replace('_', ' '):18}{_figure(row['auroc'])}{_figure(row['auprc'])}"
    if row["auroc"] is None:
        return f"{line}  {row['note']}"
    d = row["difference"]
    if d is None:
        return line
    side = "" if not d["excludes_zero"] else " ahead" if d["value"] > 0 else " BEHIND"
    return f"{line}  {d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f}){side}"


def _at_threshold(name: str, figures: Mapping[str, Any], chosen_by: str) -> str:
    precision, recall, f1 = (_figure(figures[key]).strip() for key in ("precision", "recall", "f1"))
    return f"{name}: precision {precision}, recall {recall}, F1 {f1} ({chosen_by})"


def _figure(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.4f}"
