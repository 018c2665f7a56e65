"""What the report's figures share: colours, axes, PNG bytes. No pyplot, no global state.

Colours are Okabe & Ito's, which colour-blind readers can tell apart; dashes repeat the message.
No text from the data is drawn but labels in plain letters: a file name may hold a glyph or a
formula that matplotlib cannot set.
"""

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 150
GRID_DPI = 110
PALETTE_ABOVE_BYTES = 150_000
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


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


def png(whole: Figure) -> bytes:
    """The figure as PNG; a large one (photographs) is reduced to 256 colours."""
    canvas: Any = FigureCanvasAgg(whole)  # savefig would lay the figure out twice
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    encoded = _encode(image)
    return encoded if len(encoded) <= PALETTE_ABOVE_BYTES else _encode(image.quantize(256))


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def figure(theme: Theme, *, width: float, height: float, dpi: int = DPI) -> Figure:
    """An empty figure on the theme's paper, in inches."""
    return Figure(figsize=(width, height), dpi=dpi, facecolor=theme.paper, layout="constrained")


def chart(theme: Theme, title: str, x: str, y: str, *, height: float) -> tuple[Figure, Axes]:
    """A figure of one column's width and its only axes, titled."""
    whole = figure(theme, width=4.6, height=height)
    axes = whole.add_subplot()
    style(axes, theme, title, x, y)
    return whole, axes


def style(axes: Axes, theme: Theme, title: str, x: str, y: str) -> None:
    """Gives the axes the theme's colours, a title and the names of both axes."""
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


def legend(whole: Figure, theme: Theme, *, columns: int = 2) -> None:
    """Puts the legend below the axes, where it covers nothing."""
    whole.legend(
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=8.5,
    )


def plain(text: str, *, otherwise: str) -> str:
    """The text if matplotlib can set it as it is, else `otherwise`."""
    return text if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,15}", text) else otherwise
