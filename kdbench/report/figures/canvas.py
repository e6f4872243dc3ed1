"""The paper that all figures are drawn on: one width, one style, and matplotlib's SVG made fit for a page.

Figures are as wide as a phone: shown at 330 pixels their text is as large as the page's small print, and on a desk two
stand side by side. No meaning rests on colour alone: shapes, lines and words say the same.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.3  # inches, 310 points

# Okabe & Ito (2008), which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
GREY = "#8a8a8a"

INK = "#010203"  # stands for the page's own ink, which differs between light and dark
_PAGE = {INK: "currentColor", BLUE: "var(--accent)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a method may be called a$b$
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same measures everywhere
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.facecolor": "none",
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Chart:
    """A figure with the words and the numbers that belong to it.

    Attributes:
        title: what it shows, in a few words.
        caption: how to read it.
        svg: an <svg> element that can stand in a page as it is: trusted, every text in it escaped.
        data: what is drawn, as a table.
    """

    title: str
    caption: str
    svg: str
    data: Table

    @property
    def height(self) -> float:
        """In inches, where it is as wide as it was drawn."""
        return float(self.svg.split('"', 2)[1].split()[3]) / 72


def draw(title: str, height: float, paint: Callable[[Figure], None]) -> str:
    """What `paint` draws on a figure `height` inches high, as one <svg> element, the same bytes for the same drawing.

    `title` is read to those who cannot see it, and keeps the names inside the element apart from other figures'.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    written = io.StringIO()
    # the browser has the letters that matplotlib's font lacks
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        paint(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(written, metadata=nothing)  # not savefig, which draws everything twice
    return _inline(written.getvalue(), title)


def _inline(document: str, title: str) -> str:
    """The element of an SVG document: as wide as its place, in the page's colours, named, and whole in itself."""
    svg = document[document.index("<svg") :]
    opening, body = svg.split(">", 1)
    (box,) = re.findall(r'viewBox="[^"]*"', opening)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    for drawn, shown in _PAGE.items():
        body = body.replace(drawn, shown)
    name = escape(title)
    return f'<svg {box} role="img" aria-label="{name}"><title>{name}</title>{body.strip()}'
