"""The critical-difference diagram: mean ranks across tasks, and which of them cannot be told apart (Demsar 2006)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdbench.analysis.ranks import Ranking
from kdbench.report.figures.canvas import BLUE, INK, Chart, draw
from kdbench.report.figures.labels import shortened
from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = 0.2  # inches per method


def critical_difference(ranking: Ranking) -> Chart:
    """One line per method, best first; at the right a bar for each group whose members may well be equal."""
    methods = list(ranking.mean_ranks)
    title = "Mean rank across tasks"

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(list(ranking.mean_ranks.values()), range(len(methods)), "o", color=BLUE, markersize=5.5)
        axes.set_yticks(range(len(methods)), map(shortened, methods))
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0.7, len(methods) + 0.3)
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_xlabel("mean rank, left is better")
        _join(axes, ranking)

    tasks = "; ".join(ranking.tasks)
    return Chart(
        title,
        f"{ranking.note} Methods joined by a bar at the right cannot be told apart: their mean ranks lie within the "
        f"critical difference of {ranking.critical_difference:.2f} (Nemenyi, 5 %). Tasks: {tasks}.",
        draw(title, 0.7 + _LINE * len(methods), paint),
        Table.of(("method", "mean rank"), ((name, f"{rank:.2f}") for name, rank in ranking.mean_ranks.items())),
    )


def _join(axes: Axes, ranking: Ranking) -> None:
    """Bars beside the axes, from the first member of each group of equals to its last."""
    methods = list(ranking.mean_ranks)
    for place, group in enumerate(ranking.alike):
        ends = (methods.index(group[0]), methods.index(group[-1]))
        axes.plot(
            [1.03 + 0.03 * place] * 2,
            [ends[0] - 0.2, ends[1] + 0.2],
            color=INK,
            linewidth=3,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
