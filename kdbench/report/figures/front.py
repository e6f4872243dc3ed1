"""What a score costs: the score of every row, and of the teacher, against what it takes to run or to train."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board
from kdbench.analysis.columns import decimal, magnitude, score_header
from kdbench.analysis.statistics import Interval
from kdbench.report.figures.canvas import INK, Chart, draw
from kdbench.report.figures.labels import LINE, label_points
from kdbench.report.figures.roles import COMPRESSION, TEACHER, Role, legend_of, role
from kdbench.report.figures.scale import far_out, off_the_scale
from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_FEW_COSTS = 5  # different ones; with no more, points lie on top of each other


@dataclass(frozen=True)
class Cost:
    """One thing that a score may cost.

    Attributes:
        metric: its name in the record; the teacher's own is `teacher_<metric>`, where it is known.
        words, unit: as the axis says it.
        question: what the figure answers.
    """

    metric: str
    words: str
    unit: str
    question: str


COSTS = (
    Cost("macs", "multiply-accumulates per example", "", "Score against the work of one answer"),
    Cost("latency_ms_p50", "median latency, batch of 1", "ms", "Score against waiting time"),
    Cost("training_flops", "training FLOPs, teacher's passes included", "", "Score against the cost of training"),
)


@dataclass(frozen=True)
class Point:
    """One row, or the teacher: a cost and a score in the metric's own unit."""

    name: str
    role: Role
    cost: float
    score: Interval


def fronts(board: Board) -> list[Chart]:
    """One figure per cost that sets some rows apart from others, or from the teacher."""
    found = ((cost, points_of(board, cost)) for cost in COSTS)
    return [_front(board, cost, points) for cost, points in found if len({point.cost for point in points}) > 1]


def points_of(board: Board, cost: Cost) -> list[Point]:
    """All ranked rows whose cost is known, and the teacher if its own is."""
    points = [
        Point(row.label, role(row), row.means[cost.metric], row.score)
        for row in board.rows
        if row.ranked and row.score and row.means.get(cost.metric, 0) > 0
    ]
    teachers = [row.means[f"teacher_{cost.metric}"] for row in board.rows if f"teacher_{cost.metric}" in row.means]
    if board.teacher and teachers and teachers[0] > 0:
        points.append(Point("teacher", TEACHER, teachers[0], board.teacher))
    return points


def pareto(points: Sequence[Point], higher_is_better: bool) -> list[Point]:
    """The points that no other beats in score without costing more, cheapest first."""
    sign = 1 if higher_is_better else -1
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -sign * point.score.estimate)):
        if not front or sign * point.score.estimate > sign * front[-1].score.estimate:
            front.append(point)
    return front


def _front(board: Board, cost: Cost, points: Sequence[Point]) -> Chart:
    front = pareto(points, board.higher_is_better)
    outside = far_out({point.name: point.score.estimate for point in points if point.role is not TEACHER})
    drawn = [point for point in points if point.name not in outside]
    named = drawn if len({point.cost for point in drawn}) > _FEW_COSTS else _landmarks(board, drawn, front)
    height = max(3.6, 1.5 + LINE * len(named))

    def paint(figure: Figure) -> None:
        from matplotlib.ticker import LogLocator, NullLocator

        axes = figure.add_subplot()
        _scatter(axes, board, drawn)
        xs, ys = (
            [value(point) for point in drawn if point in front]
            for value in (lambda p: p.cost, lambda p: p.score.estimate * board.scale.factor)
        )
        axes.step(xs, ys, where="post", color=INK, linewidth=0.9, linestyle="--", label="front", zorder=1)
        if max(point.cost for point in drawn) > 5 * min(point.cost for point in drawn):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(_tick)
        axes.set_xlabel(f"{cost.words} [{cost.unit}]" if cost.unit else cost.words)
        axes.set_ylabel(score_header(board))
        low, high = _limits(board, drawn)
        axes.set_ylim(*((low, high) if board.higher_is_better else (high, low)))
        axes.margins(x=0.1)
        places = [(point.cost, point.score.estimate * board.scale.factor, point.name) for point in named]
        label_points(axes, places, height - 1.3)
        legend_of(axes)

    return Chart(
        cost.question,
        "Up and to the left is better. The dashed line joins what nothing cheaper beats; bars are 95 % intervals."
        + off_the_scale(
            {point.name: board.scale.number(point.score.estimate, 1) for point in points if point.name in outside}
        )
        + _what_is_missing(points, cost),
        draw(f"{cost.question}: {board.task}, {board.pair}", height, paint),
        _data(board, cost, points, front),
    )


def _limits(board: Board, points: Sequence[Point]) -> tuple[float, float]:
    """Room for all means and, as far as they do not press these together, for their intervals; none beyond 100 %."""
    means = [point.score.estimate for point in points]
    reaches = [point.score.half_width for point in points if point.score.bounded] or [0.0]
    air = max(1.2 * statistics.median(reaches), 0.3 * (max(means) - min(means)), 0.01 * abs(max(means)))
    most = 1.005 if board.scale.share and max(means) <= 1 else math.inf
    return (min(means) - air) * board.scale.factor, min(max(means) + air, most) * board.scale.factor


def _landmarks(board: Board, points: Sequence[Point], front: Sequence[Point]) -> list[Point]:
    """Which points are named where many lie on top of each other: the front, the baseline and what is no student."""
    baselines = {row.label for row in board.rows if row.method == board.baseline}
    return [p for p in points if p in front or p.name in baselines or p.role in (TEACHER, COMPRESSION)]


def _tick(value: float, place: float) -> str:
    """50G, where a table would say 50.0G."""
    return re.sub(r"\.0+(?=\D|$)", "", magnitude(value))


def _what_is_missing(points: Sequence[Point], cost: Cost) -> str:
    if cost.metric == "training_flops" or any(point.role is TEACHER for point in points):
        return ""
    return " What the teacher itself takes was not measured."


def _scatter(axes: Axes, board: Board, points: Sequence[Point]) -> None:
    factor = board.scale.factor
    for kind in dict.fromkeys(point.role for point in points):
        own = [point for point in points if point.role is kind]
        reach = [point.score.half_width * factor if point.score.bounded else 0.0 for point in own]
        xs, ys = [point.cost for point in own], [point.score.estimate * factor for point in own]
        axes.errorbar(xs, ys, yerr=reach, fmt="none", ecolor=kind.color, elinewidth=0.8)
        size = 10 if kind is TEACHER else 5.5
        axes.plot(xs, ys, kind.marker, color=kind.color, markersize=size, label=kind.name)


def _data(board: Board, cost: Cost, points: Sequence[Point], front: Sequence[Point]) -> Table:
    digits = board.scale.digits([point.score for point in points])
    number = board.scale.number
    lines = [
        (
            point.name,
            point.role.name,
            magnitude(point.cost) if point.cost >= 1 else decimal(point.cost),
            number(point.score.estimate, digits),
            f"{number(point.score.low, digits)} to {number(point.score.high, digits)}" if point.score.bounded else "-",
            "yes" if point in front else "",
        )
        for point in sorted(points, key=lambda point: point.cost)
    ]
    unit = f"{cost.words}, {cost.unit}" if cost.unit else cost.words
    return Table.of(("", "what it is", unit, score_header(board), "95 % interval", "on the front"), lines)
