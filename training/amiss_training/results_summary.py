"""What the rows of a sweep add up to: every method's standing, and ours beside each peer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from scipy.stats import t as student

from amiss_training.results import Result

Metric = Literal["auroc", "auprc", "f1", "oracle_f1", "precision", "recall"]
METRICS: tuple[Metric, ...] = ("auroc", "auprc", "f1", "oracle_f1", "precision", "recall")
CONFIDENCE = 0.95
_ORDER = {"ours": 0, "readout": 1, "control": 2, "peer": 3}

Cell = tuple[str, str, int, str]


@dataclass(frozen=True)
class Standing:
    """One method over its cells. sd: over classes and seeds. worst: the unit of the lowest mean.

    by_unit: mean over seeds for each unit: a class, a data set, or a class of a data set.
    """

    name: str
    kind: str
    readout: str
    cells: int
    mean: float
    sd: float | None
    worst: str
    by_unit: Mapping[str, float]


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs on the cells both have: mean, 95 % interval low..high, wins and losses.

    units: how many independent differences the interval rests on; it is None for fewer than two.
    """

    ours: str
    theirs: str
    units: int
    mean: float
    interval: tuple[float, float] | None
    wins: int
    losses: int
    cells: int


def summary_lines(results: Sequence[Result], metric: Metric = "auroc") -> list[str]:
    """The whole summary as text, a section for each recipe and each option varied."""
    lines: list[str] = []
    for (recipe, over), rows in _sections(results):
        title = f"{recipe or 'no recipe'}, {metric}" + ("" if over == "none" else f", over {over}")
        found = standings(rows, metric)
        if not found:
            lines += [f"{title}: no row has it", ""]
            continue
        lines += [title, "", *_standing_lines(found), ""]
        lines += [*_difference_lines(differences(rows, metric)), ""]
    return lines[:-1]


def standings(results: Sequence[Result], metric: Metric = "auroc") -> list[Standing]:
    """Every method's standing, ours first, the best mean first within a kind.

    A method under several settings stands there once for each: name#hash.
    """
    found = []
    for name, rows in _by_method(results).items():
        figures = {cell: getattr(row, metric) for cell, row in rows.items()}
        values = {cell: value for cell, value in figures.items() if value is not None}
        if not values:
            continue
        by_unit = _by_unit(values, results)
        first = next(iter(rows.values()))
        found.append(
            Standing(
                name=name,
                kind=first.kind,
                readout=first.readout,
                cells=len(values),
                mean=fmean(values.values()),
                sd=stdev(values.values()) if len(values) > 1 else None,
                worst=min(by_unit, key=lambda unit: by_unit[unit]),
                by_unit=by_unit,
            )
        )
    return sorted(found, key=lambda s: (_ORDER[s.kind], -s.mean))


def differences(results: Sequence[Result], metric: Metric = "auroc") -> list[Difference]:
    """Each of ours beside each peer, and beside its own control, on equal rows.

    The interval is Student's over units: seeds of one class share its difficulty, so they are
    averaged first. With one unit only, its seeds are what there is.
    """
    methods = _by_method(results)
    kinds = {name: next(iter(rows.values())) for name, rows in methods.items()}
    found = []
    for ours in (name for name, first in kinds.items() if first.kind == "ours"):
        for theirs, first in kinds.items():
            own_control = first.kind == "control" and first.method.startswith(
                f"{kinds[ours].method}/"
            )
            if first.kind == "peer" or own_control:
                gaps = _gaps(methods[ours], methods[theirs], metric)
                if gaps:
                    found.append(_difference(ours, theirs, gaps, results))
    return found


def _difference(
    ours: str, theirs: str, gaps: Mapping[Cell, float], results: Sequence[Result]
) -> Difference:
    by_unit = _by_unit(gaps, results)
    independent = list(by_unit.values()) if len(by_unit) > 1 else list(gaps.values())
    return Difference(
        ours=ours,
        theirs=theirs,
        units=len(independent),
        mean=fmean(gaps.values()),
        interval=_interval(independent),
        wins=sum(gap > 0 for gap in gaps.values()),
        losses=sum(gap < 0 for gap in gaps.values()),
        cells=len(gaps),
    )


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    n = len(values)
    reach = float(student.ppf(0.5 + CONFIDENCE / 2, n - 1)) * stdev(values) / np.sqrt(n)
    return fmean(values) - reach, fmean(values) + reach


def _sections(
    results: Sequence[Result],
) -> Iterable[tuple[tuple[str, str], list[Result]]]:
    def section(row: Result) -> tuple[str, str]:
        return row.recipe, row.over

    ordered = sorted(results, key=section)
    return ((key, list(rows)) for key, rows in groupby(ordered, key=section))


def _by_method(results: Sequence[Result]) -> dict[str, dict[Cell, Result]]:
    """Rows by method and cell; `method#hash` where a method ran under several settings."""
    settings: dict[str, set[str]] = {}
    for row in results:
        settings.setdefault(row.method, set()).add(row.config_hash)
    found: dict[str, dict[Cell, Result]] = {}
    for row in results:
        several = len(settings[row.method]) > 1
        name = f"{row.method}#{row.config_hash[:6]}" if several else row.method
        cell = (row.data, row.class_, row.seed, row.split_hash)
        found.setdefault(name, {})[cell] = row
    return found


def _gaps(
    ours: Mapping[Cell, Result], theirs: Mapping[Cell, Result], metric: Metric
) -> dict[Cell, float]:
    pairs = {
        cell: (getattr(ours[cell], metric), getattr(theirs[cell], metric))
        for cell in ours
        if cell in theirs
    }
    return {cell: a - b for cell, (a, b) in pairs.items() if a is not None and b is not None}


def _by_unit(values: Mapping[Cell, float], results: Sequence[Result]) -> dict[str, float]:
    """Means over seeds, by class, by data set, or by both where both vary."""
    many_data = len({row.data for row in results}) > 1
    has_classes = any(row.class_ for row in results)
    units: dict[str, list[float]] = {}
    for (data, class_, _, _), value in values.items():
        parts = [data] * (many_data or not has_classes) + [class_] * has_classes
        units.setdefault("/".join(parts), []).append(value)
    return {unit: fmean(units[unit]) for unit in sorted(units, key=_natural)}


def _natural(text: str) -> tuple[int, float, str]:
    """Sorts 2 before 10, and numbers before words."""
    return (0, float(text), "") if text.isdecimal() else (1, 0.0, text)


def _standing_lines(found: Sequence[Standing]) -> list[str]:
    units = sorted({unit for s in found for unit in s.by_unit}, key=_natural)
    head = ["method", "read-out", "cells", "mean", "sd", "worst", *units]
    rows = [
        [
            s.name,
            s.readout or "-",
            str(s.cells),
            f"{s.mean:.4f}",
            "-" if s.sd is None else f"{s.sd:.4f}",
            f"{s.worst}: {s.by_unit[s.worst]:.4f}",
            *(f"{s.by_unit[unit]:.3f}" if unit in s.by_unit else "-" for unit in units),
        ]
        for s in found
    ]
    return _aligned([head, *rows])


def _difference_lines(found: Sequence[Difference]) -> list[str]:
    head = ["ours - theirs", "mean", "95 % interval", "of", "wins", "losses", "cells"]
    rows = [
        [
            f"{d.ours} - {d.theirs}",
            f"{d.mean:+.4f}",
            "-" if d.interval is None else f"{d.interval[0]:+.4f} .. {d.interval[1]:+.4f}",
            *map(str, (d.units, d.wins, d.losses, d.cells)),
        ]
        for d in found
    ]
    return _aligned([head, *rows]) if rows else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
