"""Corruption robustness: the score on corrupted test examples, one panel per kind of corruption."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Row
from kdbench.analysis.columns import score_header
from kdbench.report.figures.canvas import INK, Chart, draw
from kdbench.report.figures.labels import shortened
from kdbench.report.figures.roles import legend_of, role
from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 2
_BAR = 0.17  # inches


def corrupted_scores(board: Board) -> Chart | None:
    """Mean scores of all ranked rows that were tested on corrupted examples; None where there are none."""
    prefix = f"corrupted_{board.primary}/"
    rows = [row for row in board.rows if row.ranked and any(name.startswith(prefix) for name in row.means)]
    if not rows:
        return None
    kinds = sorted({name.removeprefix(prefix) for row in rows for name in row.means if name.startswith(prefix)})
    scores = {kind: _shown(rows, prefix + kind, board.scale.factor) for kind in kinds}
    title = "When the inputs are corrupted"
    down = (len(kinds) + _ACROSS - 1) // _ACROSS

    def paint(figure: Figure) -> None:
        grid = figure.subplots(down, min(_ACROSS, len(kinds)), sharex=True, sharey=True, squeeze=False).ravel()
        for axes, kind in zip(grid, kinds, strict=False):
            _panel(axes, kind, rows, scores[kind])
        for axes in grid[len(kinds) :]:
            axes.remove()
        for axes in grid[: len(kinds)][-_ACROSS:]:
            axes.set_xlabel(score_header(board))
            axes.tick_params(labelbottom=True)
        legend_of(grid[0])

    return Chart(
        title,
        "Mean over seeds and severities for each kind of corruption; the thin line reaches from the lowest to the "
        "highest seed.",
        draw(f"{title}: {board.task}, {board.pair}", 1.0 + down * (0.35 + _BAR * len(rows)), paint),
        _data(board, rows, scores),
    )


def _shown(rows: Sequence[Row], metric: str, factor: float) -> dict[str, list[float]]:
    """Per row that has it for all its seeds, the values as they are shown."""
    return {row.label: [value * factor for value in row.values[metric].values()] for row in rows if metric in row.means}


def _panel(axes: Axes, kind: str, rows: Sequence[Row], scores: Mapping[str, Sequence[float]]) -> None:
    for place, row in enumerate(rows):
        values, own = scores.get(row.label), role(row)
        if not values:
            continue
        _, drawn = axes.get_legend_handles_labels()
        hatch = None if own.name == "distillation method" else "////"  # not by colour alone
        axes.barh(
            place,
            statistics.fmean(values),
            height=0.7,
            color=own.color,
            hatch=hatch,
            alpha=0.85,
            label=None if own.name in drawn else own.name,
        )
        axes.plot([min(values), max(values)], [place, place], color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [shortened(row.label, 18) for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_title(kind.replace("_", " "), fontsize=8.5, loc="left")


def _data(board: Board, rows: Sequence[Row], scores: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    digits = board.scale.digits([row.score for row in rows])
    lines = [
        (
            row.label,
            *(f"{statistics.fmean(own[row.label]):.{digits}f}" if row.label in own else "-" for own in scores.values()),
        )
        for row in rows
    ]
    return Table.of((score_header(board), *(kind.replace("_", " ") for kind in scores)), lines)
