"""What all figures share: text that can be set, PNGs that stay small."""

import io

import pytest
from PIL import Image

from amiss_training.plots import DARK, LIGHT, chart, plain, png


@pytest.mark.parametrize("text", ["$x$", "_hidden", "", "a" * 17, "\u4e2d", "<b>"])
def test_text_that_matplotlib_may_not_set_is_replaced(text: str) -> None:
    """A formula, a leading underscore, a foreign glyph or a long label gives the other name."""
    assert plain(text, otherwise="class 1") == "class 1"


def test_plain_labels_are_drawn_as_they_are() -> None:
    """Letters, digits and a dash stay."""
    assert plain("t-shirt 0.5", otherwise="class 1") == "t-shirt 0.5"


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_paper_has_the_schemes_colour(theme: object) -> None:
    """The corner pixel of a chart is the theme's paper."""
    scheme = LIGHT if theme is LIGHT else DARK
    whole, _ = chart(scheme, "Title", "x", "y", height=2)
    corner = Image.open(io.BytesIO(png(whole))).convert("RGB").getpixel((0, 0))
    assert "#{:02x}{:02x}{:02x}".format(*corner) == scheme.paper
