"""Small multiples: one panel per method, all on the same axes, so that no figure needs twenty colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kdbench.report.figures.labels import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 3
_NARROW = 19  # letters that fit above a panel


def panels_height(count: int, each: float = 1.15) -> float:
    """Inches for `count` panels, `each` inches high, and the words around them."""
    return 0.75 + each * math.ceil(count / _ACROSS)


def panels(
    figure: Figure, names: Sequence[str], paint: Callable[[Axes, str], None], x_label: str, y_label: str
) -> None:
    """Draws a panel for each of `names` with `paint`; the axes are shared and labelled once."""
    down = math.ceil(len(names) / _ACROSS)
    grid = figure.subplots(down, min(_ACROSS, len(names)), sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        paint(axes, name)
        axes.set_title(shortened(name, _NARROW), fontsize=8, loc="left")
        axes.tick_params(labelsize=8)
    for place, axes in enumerate(grid):
        if place >= len(names):
            axes.remove()
        elif place + _ACROSS >= len(names):
            axes.tick_params(labelbottom=True)
    figure.supxlabel(x_label, fontsize=9)
    figure.supylabel(y_label, fontsize=9)
