"""Names beside a cloud of points, in a column at the right, each tied to its point: none lies on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdbench.report.figures.canvas import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.145  # inches from one name to the next
_LONGEST = 22


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]], height: float) -> None:
    """Names the points (x, y, name) of axes that are about `height` inches high.

    Call it last: where the names go depends on the limits of the axes.
    """
    _ = axes.get_xlim(), axes.get_ylim()  # asked for, they are up to date, and transData with them
    bottom_to_top = sorted(points, key=lambda point: axes.transData.transform((point[0], point[1]))[1])
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_axes.transform((x, y))[1]) for x, y, _ in bottom_to_top]
    for (x, y, name), place in zip(bottom_to_top, spread(wanted, LINE / height), strict=True):
        axes.annotate(
            shortened(name),
            (x, y),
            xytext=(1.04, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "alpha": 0.6, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3},
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending `places` moved until neighbours are `gap` apart, each group around the middle of its places.

    None leaves the stretch from 0 to 1, if there is room for all in it.
    """
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _low(groups[-1], gap) < _high(groups[-2], gap) + gap:
            last = groups.pop()
            groups[-1] += last
    moved = [_low(group, gap) + index * gap for group in groups for index in range(len(group))]
    above = [min(place, 1 - (len(moved) - 1 - index) * gap) for index, place in enumerate(moved)]
    return [max(place, index * gap) for index, place in enumerate(above)]


def shortened(name: str, longest: int = _LONGEST) -> str:
    """A name of at most `longest` letters, cut in its middle; the data below a figure have it whole."""
    kept = longest - 1
    return name if len(name) <= longest else f"{name[: kept - kept // 2]}…{name[-(kept // 2) :]}"


def _low(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _high(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2
