"""Does being like the teacher pay? Agreement with the teacher against the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Row
from kdbench.analysis.columns import percent, score, score_header
from kdbench.report.figures.canvas import Chart, draw
from kdbench.report.figures.labels import LINE, label_points
from kdbench.report.figures.roles import legend_of, role
from kdbench.report.figures.scale import far_out, off_the_scale
from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def agreement_and_score(board: Board) -> Chart | None:
    """One point per ranked row; None where fewer than two were compared with the teacher."""
    rows = [row for row in board.rows if row.ranked and row.score and "agreement" in row.means]
    if len(rows) < 2:
        return None
    title = "Like the teacher, and as good?"
    places = {row.label: _place(row, board) for row in rows}
    outside = far_out({label: x for label, (x, _) in places.items()}) | far_out({k: y for k, (_, y) in places.items()})
    drawn = [row for row in rows if row.label not in outside]
    height = max(3.6, 1.5 + LINE * len(drawn))

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for kind in dict.fromkeys(map(role, drawn)):
            own = [places[row.label] for row in drawn if role(row) is kind]
            axes.plot(*zip(*own, strict=True), kind.marker, color=kind.color, markersize=5.5, label=kind.name)
        axes.set_xlabel("agreement with the teacher %")
        axes.set_ylabel(score_header(board))
        if not board.higher_is_better:
            axes.invert_yaxis()
        axes.margins(x=0.08, y=0.08)
        label_points(axes, [(*places[row.label], row.label) for row in drawn], height - 1.3)
        legend_of(axes)

    return Chart(
        title,
        "How often a student gives the teacher's answer, right or wrong, against its score. A control shows how much "
        "of the agreement comes from learning the same task."
        + off_the_scale(
            {label: f"{x:.1f} % agreement, score {y:.1f}" for label, (x, y) in places.items() if label in outside}
        ),
        draw(f"{title} {board.task}, {board.pair}", height, paint),
        _data(board, rows),
    )


def _place(row: Row, board: Board) -> tuple[float, float]:
    assert row.score is not None
    return 100 * row.means["agreement"], row.score.estimate * board.scale.factor


def _data(board: Board, rows: list[Row]) -> Table:
    lines = [
        (
            row.label,
            role(row).name,
            percent(row.means["agreement"], 1),
            score(row, board),
            ", ".join(row.fidelity_controls),
        )
        for row in rows
    ]
    return Table.of(("", "what it is", "agreement %", score_header(board), "to be compared with"), lines)
