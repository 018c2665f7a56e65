"""The page and its plot, made from the JSON file: medians over the rounds, ratios inside each."""

import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Record = dict[str, Any]
OURS, BARE = "Amiss", "ONNX Runtime"
TARGET = "gRPC"  # our door in the ratios
TUNED = "TorchServe is measured at the best of its grid for each kind of request."
NOT_TUNED = "TorchServe's grid was left out: it is measured at one setting."
COLUMNS = ("answers/s", "rows/s", "p50 ms", "p99 ms", "CPU s / 1,000 rows", "setting")


def write_report(results: dict[str, Any], page: Path) -> Path:
    """The page with its generated part replaced; what people wrote around it stays."""
    plot = page.with_suffix(".png")
    draw(results["records"], plot)
    return replace_part(page, "bench_serving.py", render(results, plot.name))


def replace_part(page: Path, script: str, text: str) -> Path:
    """The page with the part between a script's two marks replaced, or added at its end."""
    begin, end = (f"<!-- {script}: {word} -->" for word in ("begin", "end"))
    part = f"{begin}\n{text}\n{end}"
    old = page.read_text() if page.exists() else "# Performance\n"
    if begin not in old and end not in old:
        page.write_text(f"{old.rstrip()}\n\n{part}\n")
        return page
    if begin not in old or end not in old:
        raise SystemExit(f"{page}: expected the lines {begin!r} and {end!r} around what is made")
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    page.write_text(pattern.sub(lambda _: part, old))
    return page


def render(results: dict[str, Any], plot: str) -> str:
    """Markdown: where it was measured, the ratios, a table for each kind of request, memory."""
    machine, plan, records = results["machine"], results["plan"], results["records"]
    parts = [
        f"## Serving, beside its peers\n\n"
        f"`make bench` or `python tests/bench/bench_serving.py`, {machine['date']}, commit "
        f"{machine['commit']}: {machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']}"
        f" GB, ONNX Runtime {machine['onnxruntime']}, {machine['h2load']}. Servers: "
        f"{', '.join(f'{name} {version}' for name, version in results['versions'].items())}.\n\n"
        f"A small convolutional VAE on 28x28 images, one compute thread everywhere, and the same "
        f"ONNX file; `TorchServe, TorchScript` has the same network as TorchScript, and the same "
        f"scores. The load generator shares the cores. Medians of {plan['rounds']} rounds, in "
        f"which the servers take turns; windows of {plan['seconds']:g} s after "
        f"{plan['warm_up_s']:g} s. {TUNED if plan['tune_s'] else NOT_TUNED} In an open loop "
        f"requests arrive at random (Poisson) at a share of what 64 callers get, and latency "
        f"counts from when a request was due.",
        f"![Answers a second and latency, by server]({plot})",
        _ratios(records),
    ]
    parts += [_table(title, found) for title, found in by_request(records)]
    parts.append(_footprint(results["servers"]))
    return "\n\n".join(part for part in parts if part)


def by_request(records: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """A title and the records of each kind of request: rows, and callers or load."""
    kinds = {(r["rows"], r["in_flight"] or 0, r["load"] or 0.0) for r in records}
    for rows, in_flight, load in sorted(kinds, key=lambda kind: (kind[0], kind[2], kind[1])):
        each = [r for r in records if (r["rows"], r["in_flight"] or 0, r["load"] or 0.0)
                == (rows, in_flight, load)]  # fmt: skip
        size = "1 row" if rows == 1 else f"{rows} rows"
        callers = f"{in_flight} caller{'s' if in_flight > 1 else ''}"
        yield f"{size} a request, {callers if in_flight else f'open loop at {load:.0%} load'}", each


def median_of(records: Sequence[Record], key: str) -> float:
    """The median over the rounds of one server's figure."""
    return statistics.median(float(r[key]) for r in records)


def ratio(records: Sequence[Record], key: str, *, to: str) -> float | None:
    """Our figure over the best of another server's doors: the median of the rounds' ratios.

    Best is the most answers a second, or the least latency. None when either was not measured.
    """
    best = max if key == "requests_per_s" else min
    ratios = []
    for number in sorted({r["round"] for r in records}):
        of_round = [r for r in records if r["round"] == number]
        ours = [r[key] for r in of_round if r["server"] == OURS and r["door"] == TARGET]
        theirs = [r[key] for r in of_round if r["server"] == to]
        if ours and theirs:
            ratios.append(ours[0] / best(theirs))
    return statistics.median(ratios) if ratios else None


def draw(records: Sequence[Record], path: Path) -> None:
    """Two bars of bars: answers a second of 64 callers, and the median of one caller."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    busiest = max(r["in_flight"] or 0 for r in records)
    _bars(left, records, key="requests_per_s", in_flight=busiest)
    left.set_title(f"Answers a second, {busiest} callers, 1 row", fontsize=10)
    _bars(right, records, key="p50_ms", in_flight=1)
    right.set_title("Median latency in ms, 1 caller, 1 row", fontsize=10)
    figure.savefig(path, dpi=110)


def _bars(axes: Any, records: Sequence[Record], *, key: str, in_flight: int) -> None:
    found = [r for r in records if r["rows"] == 1 and r["in_flight"] == in_flight]
    values = {name: median_of(each, key) for name, each in _by_server(found)}
    names = list(values)[::-1]
    colours = ["#0b6e4f" if name.startswith(OURS) else "#9aa5b1" for name in names]
    bars = axes.barh(names, [values[name] for name in names], color=colours)
    axes.bar_label(bars, fmt="{:,.3g}" if key == "p50_ms" else "{:,.0f}", padding=3, fontsize=8)
    axes.margins(x=0.15)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _by_server(records: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """The records of each server and door, in the order measured, ours first."""
    names = dict.fromkeys((r["server"], r["door"]) for r in records)
    for server, door in sorted(names, key=lambda name: name[0] != OURS):
        each = [r for r in records if (r["server"], r["door"]) == (server, door)]
        yield f"{server}, {door}", each


def _ratios(records: Sequence[Record]) -> str:
    peers = [name for name in dict.fromkeys(r["server"] for r in records)
             if name not in {OURS, BARE}]  # fmt: skip
    rows: list[tuple[str, Callable[[float], str], list[float | None]]] = []
    for title, found in by_request(records):
        if found[0]["in_flight"] is None:
            continue
        for key, words in (("requests_per_s", "answers/s"), ("p50_ms", "p50"), ("p99_ms", "p99")):
            values = [ratio(found, key, to=peer) for peer in peers]
            if any(value is not None for value in values):
                rows.append((f"{title}: {words}", "{:.2f}".format, values))
    if not rows:
        return ""
    head = f"| Amiss over gRPC, relative to the best door of | {' | '.join(peers)} |"
    line = f"|---|{'---|' * len(peers)}"
    body = [
        f"| {title} | {' | '.join('' if v is None else form(v) for v in values)} |"
        for title, form, values in rows
    ]
    return "\n".join([head, line, *body])


def _table(title: str, records: Sequence[Record]) -> str:
    lines = [f"### {title}", "", f"| server | {' | '.join(COLUMNS)} |", "|---" * 7 + "|"]
    for name, each in _by_server(records):
        figures = [
            f"{median_of(each, 'requests_per_s'):,.0f}",
            f"{median_of(each, 'rows_per_s'):,.0f}",
            f"{median_of(each, 'p50_ms'):.2f}",
            f"{median_of(each, 'p99_ms'):.2f}",
            f"{median_of(each, 'cpu_s_per_1000_rows'):.3f}",
            each[-1]["setting"],
        ]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    late_ms = max(float(r["late_p99_ms"]) for r in records)
    if records[0]["load"] is not None:
        lines += ["", f"99 % of the requests left within {late_ms:.1f} ms of when they were due."]
    return "\n".join(lines)


def _footprint(servers: Sequence[Record]) -> str:
    title = "### Peak memory of all processes of a server (RSS)"
    lines = [title, "", "| server | MB |", "|---|---|"]
    for server in dict.fromkeys(r["server"] for r in servers):
        found = [r for r in servers if r["server"] == server]
        lines.append(f"| {server} | {median_of(found, 'peak_rss_mb'):,.0f} |")
    failed = [line for r in servers for line in r["failed"]]
    if failed:
        lines += ["", "Requests that servers counted as failed:", *(f"`{line}`" for line in failed)]
    return "\n".join(lines)
