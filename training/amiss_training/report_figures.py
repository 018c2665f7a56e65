"""The figures of a report: which ones its data can support, each in a light and a dark version."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amiss_training.plots import DARK, LIGHT
from amiss_training.plots_curves import (
    cdf_png,
    histogram_png,
    history_png,
    precision_recall_png,
    roc_png,
)
from amiss_training.plots_images import (
    absolute_difference,
    image_grid_png,
    pixel_maps_png,
    samples_png,
)
from amiss_training.plots_latent import latent_png
from amiss_training.report_inputs import ReportInputs
from amiss_training.wording import TITLES

OURS = "this detector"
CURVES = 5  # peers drawn beside ours, the best; the table has all
OF_MEMBERS = ("training_curves", "latent_space", "samples")

Figures = dict[str, dict[str, bytes]]
Draw = Callable[..., bytes | None]


def draw(
    inputs: ReportInputs,
    chosen: Mapping[str, NDArray[np.intp]],
    expected: Mapping[str, NDArray[Any]],
) -> Figures:
    """{figure: {scheme: png}}; a figure the test rows cannot support is absent.

    chosen: test rows by the name of their grid, expected: their reconstructions.
    """
    charts = _score_charts(inputs) | _ranking_charts(inputs) | _member_charts(inputs)
    drawn = {
        name: {"light": make(theme=LIGHT), "dark": make(theme=DARK)}
        for name, make in charts.items()
    }
    figures = {
        name: {scheme: png for scheme, png in pngs.items() if png is not None}
        for name, pngs in drawn.items()
        if pngs["light"] is not None
    }
    if inputs.manifest.input.kind != "image":
        return figures
    # One version for both schemes: photographs weigh too much to come twice.
    pictures = _grids(inputs, chosen, expected) | _pixel_maps(inputs, chosen["most_anomalous"])
    pictures |= {
        figure_name("samples", name): samples_png(found.samples)
        for name, found in inputs.inspections.items()
    }
    return figures | {name: {"light": png} for name, png in pictures.items()}


def figure_name(kind: str, member: str) -> str:
    """Name of a member's figure, safe as a file name."""
    return f"{kind}_{re.sub('[^A-Za-z0-9]+', '_', member)}"


def _score_charts(inputs: ReportInputs) -> dict[str, Draw]:
    decision = inputs.manifest.decision
    charts = {"score_histogram": histogram_png, "score_cdf": cdf_png}
    return {
        name: partial(
            make,
            inputs.score,
            inputs.is_anomaly,
            threshold=decision.threshold,
            median=decision.median,
        )
        for name, make in charts.items()
    }


def _ranking_charts(inputs: ReportInputs) -> dict[str, Draw]:
    metrics, truth = inputs.metrics, inputs.is_anomaly
    if metrics["auroc"] is None:
        return {}
    curves, recall, precision = _curves(inputs), metrics["recall"], metrics["precision"]
    at_recall = None if precision is None else (recall, precision)
    alarms = (metrics["false_alarm_share"], recall)
    return {
        "roc": partial(roc_png, curves, truth, operating_point=alarms),
        "precision_recall": partial(precision_recall_png, curves, truth, operating_point=at_recall),
    }


def _member_charts(inputs: ReportInputs) -> dict[str, Draw]:
    charts: dict[str, Draw] = {
        figure_name("training_curves", name): partial(history_png, history)
        for name, history in inputs.histories.items()
    }
    label = np.asarray(inputs.label, dtype=str)
    for name, found in inputs.inspections.items():
        charts[figure_name("latent_space", name)] = partial(
            latent_png,
            found.codes,
            label[found.code_rows],
            inputs.is_anomaly[found.code_rows],
            axis="latent dimension" if found.latent_dim <= 2 else "principal component",
        )
    return charts


def _grids(
    inputs: ReportInputs,
    chosen: Mapping[str, NDArray[np.intp]],
    expected: Mapping[str, NDArray[Any]],
) -> dict[str, bytes]:
    brightest = max(
        float(absolute_difference(inputs.x[rows], expected[name]).max())
        for name, rows in chosen.items()
    )
    return {
        name: image_grid_png(
            inputs.x[rows], expected[name], inputs.score[rows], brightest=brightest
        )
        for name, rows in chosen.items()
    }


def _pixel_maps(inputs: ReportInputs, rows: NDArray[np.intp]) -> dict[str, bytes]:
    """Maps of these rows, averaged over the members: all are on one scale."""
    makers = [i.pixel_maps for i in inputs.inspections.values() if i.pixel_maps is not None]
    if not makers:
        return {}
    maps = np.mean([make(inputs.x[rows]) for make in makers], axis=0)
    masks = None if inputs.masks is None else inputs.masks[rows]
    return {"pixel_maps": pixel_maps_png(inputs.x[rows], maps, inputs.score[rows], masks=masks)}


def _curves(inputs: ReportInputs) -> dict[str, NDArray[Any]]:
    """Scores to draw: ours, and those of the best peers."""
    ranked = sorted(
        (name for name, peer in inputs.peers.items() if peer["auroc"] is not None),
        key=lambda name: -inputs.peers[name]["auroc"],
    )
    curves: dict[str, NDArray[Any]] = {OURS: inputs.score}
    for name in ranked[:CURVES]:
        scores = inputs.peer_scores[name].scores
        if scores is not None:
            curves[TITLES.get(name, name)] = scores
    return curves
