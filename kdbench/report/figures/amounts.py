"""Gains against the amount of training data, where a suite varies it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.columns import gain, percent
from kdbench.report.figures.canvas import BLUE, INK, Chart, draw
from kdbench.report.figures.panels import panels, panels_height
from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def gains_by_amount(leaderboard: Leaderboard) -> list[Chart]:
    """One figure per data set and pair that was trained on several parts of its training examples."""
    groups: dict[tuple[str, str], list[Board]] = defaultdict(list)
    for board in leaderboard.boards:
        groups[board.data_set, board.pair].append(board)
    ordered = (sorted(boards, key=lambda board: board.train_fraction) for boards in groups.values())
    charts = (_by_amount(boards) for boards in ordered if len(boards) > 1)
    return [chart for chart in charts if chart is not None]


def _by_amount(boards: Sequence[Board]) -> Chart | None:
    """One panel per method that was compared with the baseline on two or more parts."""
    gains: dict[str, list[tuple[Board, Row]]] = defaultdict(list)
    for board in boards:
        for row in board.rows:
            if row.difference and not row.control:
                gains[row.label].append((board, row))
    gains = {label: rows for label, rows in gains.items() if len(rows) > 1}
    if not gains:
        return None
    largest = boards[-1]
    title = f"Gains by the amount of data: {largest.data_set or largest.task}, {largest.pair}"

    def paint(figure: Figure) -> None:
        unit = f"gain over {largest.baseline}, {largest.scale.unit_in_words}"
        panels(figure, list(gains), lambda axes, label: _panel(axes, gains[label]), "training examples used %", unit)

    lines = [
        (label, percent(board.train_fraction, 0), gain(row, board))
        for label, rows in gains.items()
        for board, row in rows
    ]
    return Chart(
        title,
        "Means of the differences per seed with 95 % intervals; above the line the method helps. If it helps most when "
        "data are few, its gains fall from left to right.",
        draw(title, panels_height(len(gains)), paint),
        Table.of(("method", "training examples %", f"gain over {largest.baseline}"), lines),
    )


def _panel(axes: Axes, rows: Sequence[tuple[Board, Row]]) -> None:
    points = [(100 * board.train_fraction, row.difference, board.scale.factor) for board, row in rows if row.difference]
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.errorbar(
        [x for x, _, _ in points],
        [found.estimate * factor for _, found, factor in points],
        yerr=[found.half_width * factor if found.bounded else 0.0 for _, found, factor in points],
        fmt="o-",
        color=BLUE,
        markersize=4,
        linewidth=1.1,
    )
    axes.set_xscale("log")
    axes.set_xticks([x for x, _, _ in points], [f"{x:.3g}" for x, _, _ in points])
    axes.minorticks_off()
