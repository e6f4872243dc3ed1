"""Paired differences as forest plots: what each method gains over the baseline, and over every control of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Row
from kdbench.analysis.effects import Effect
from kdbench.analysis.statistics import Interval
from kdbench.report.figures.canvas import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, Chart, draw
from kdbench.report.figures.labels import shortened
from kdbench.report.figures.roles import legend_of, role
from kdbench.report.figures.scale import fences
from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = 0.2  # inches per interval
_MARKS = tuple(zip("sDv^Ph<>X", (ORANGE, GREEN, PURPLE, VERMILION, SKY, BLUE, ORANGE, GREEN, PURPLE), strict=True))


@dataclass(frozen=True)
class _Bar:
    """One interval of a forest plot, in the metric's own unit."""

    row: str
    over: str
    interval: Interval
    marker: str
    color: str
    note: str = ""


def gains_over_baseline(board: Board) -> Chart | None:
    """What every row gains over the baseline, best first, methods before controls, with its verdict."""
    rows = sorted((row for row in board.rows if row.difference), key=lambda row: row.control)
    if not rows:
        return None
    bars = [
        _Bar(row.label, board.baseline, row.difference, role(row).marker, role(row).color, row.verdict.label)
        for row in rows
        if row.difference
    ]
    names = {(role(row).marker, role(row).color): role(row).name for row in rows}
    return _forest(f"Gain over {board.baseline}", board, bars, names)


def gains_over_controls(board: Board) -> Chart | None:
    """What every method gains over each control that applies to it beside the baseline: what they cannot explain."""
    groups = {row.label: _beside_baseline(row, board) for row in board.rows}
    controls = list(dict.fromkeys(control for group in groups.values() for control in group))
    if not controls:
        return None
    marks = {control: _MARKS[index % len(_MARKS)] for index, control in enumerate(controls)}
    bars = [
        _Bar(label, control, effect.interval(), *marks[control])
        for label, group in groups.items()
        for control, effect in group.items()
    ]
    names = {mark: f"over {control}" for control, mark in marks.items()}
    return _forest("Gain over the controls", board, bars, names)


def _beside_baseline(row: Row, board: Board) -> Mapping[str, Effect]:
    baselines = {each.label for each in board.rows if each.method == board.baseline}
    return {control: effect for control, effect in row.against.items() if control not in baselines}


def _forest(title: str, board: Board, bars: Sequence[_Bar], names: Mapping[tuple[str, str], str]) -> Chart:
    height = 1.1 + _LINE * len(bars) + 0.2 * ((len(names) + 1) // 2)
    margin = f"{board.equivalence_margin * board.scale.factor:.3g} {board.scale.unit_in_words}"

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        _mark_nothing(axes, board)
        low, high = _limits(bars)
        axes.set_xlim(low * board.scale.factor, high * board.scale.factor)
        for place, bar in enumerate(bars):
            _name_shape(axes, bar, names)
            if low <= bar.interval.estimate <= high:
                _interval(axes, bar, place, board.scale.factor)
            else:
                _arrow(axes, bar, place, board)
            axes.text(1.02, place, bar.note, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        firsts = [place for place, bar in enumerate(bars) if place == 0 or bars[place - 1].row != bar.row]
        axes.set_yticks(firsts, [shortened(bars[place].row) for place in firsts])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        for place in firsts[1:] if len(firsts) < len(bars) else []:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.4)
        axes.set_xlabel(f"gain in {board.scale.unit_in_words}, right is better")
        legend_of(axes)

    return Chart(
        title,
        "Means of the differences per seed, with 95 % intervals. An interval that touches the line at 0 leaves it open "
        f"whether there is a gain; inside the grey band a difference is too small to matter (±{margin})."
        + (" An arrow at the edge points to a mean far beyond it." if _any_far(bars) else ""),
        draw(f"{title}: {board.task}, {board.pair}", height, paint),
        _data(board, bars),
    )


def _mark_nothing(axes: Axes, board: Board) -> None:
    margin = board.equivalence_margin * board.scale.factor
    axes.axvspan(-margin, margin, color=GREY, alpha=0.18, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.9)


def _limits(bars: Sequence[_Bar]) -> tuple[float, float]:
    """From where to where the axis goes: 0 and all intervals, but for those of means that are far out."""
    low, high = fences([bar.interval.estimate for bar in bars])
    near = [bar.interval for bar in bars if low <= bar.interval.estimate <= high]
    ends = [0.0, *(end for each in near for end in (each.estimate, each.low, each.high) if math.isfinite(end))]
    air = 0.04 * (max(ends) - min(ends)) or 1e-3
    return min(ends) - air, max(ends) + air


def _any_far(bars: Sequence[_Bar]) -> bool:
    low, high = _limits(bars)
    return not all(low <= bar.interval.estimate <= high for bar in bars)


def _name_shape(axes: Axes, bar: _Bar, names: Mapping[tuple[str, str], str]) -> None:
    name = names[bar.marker, bar.color]
    if name not in axes.get_legend_handles_labels()[1]:
        axes.plot([], [], bar.marker, color=bar.color, markersize=5.5, label=name)


def _arrow(axes: Axes, bar: _Bar, place: int, board: Board) -> None:
    """At the edge of the axes towards a mean beyond it, with its value."""
    left = bar.interval.estimate < 0
    value = board.scale.number(bar.interval.estimate, 1, sign=True)
    axes.plot(
        0.02 if left else 0.98,
        place,
        "<" if left else ">",
        color=bar.color,
        markersize=6,
        transform=axes.get_yaxis_transform(),
    )
    axes.text(
        0.06 if left else 0.94,
        place,
        value,
        transform=axes.get_yaxis_transform(),
        va="center",
        ha="left" if left else "right",
        fontsize=8,
        color=INK,
    )


def _interval(axes: Axes, bar: _Bar, place: int, factor: float) -> None:
    if bar.interval.bounded:
        ends = [bar.interval.low * factor, bar.interval.high * factor]
        axes.plot(ends, [place, place], "|-", color=bar.color, linewidth=1.4, markersize=5)
    axes.plot(bar.interval.estimate * factor, place, bar.marker, color=bar.color, markersize=5.5)


def _data(board: Board, bars: Sequence[_Bar]) -> Table:
    digits, number = board.scale.digits([bar.interval for bar in bars]), board.scale.number
    lines = [
        (
            bar.row,
            bar.over,
            *(
                number(end, digits, sign=True) if known else "-"
                for end, known in (
                    (bar.interval.estimate, True),
                    (bar.interval.low, bar.interval.bounded),
                    (bar.interval.high, bar.interval.bounded),
                )
            ),
            str(bar.interval.n),
        )
        for bar in bars
    ]
    gain = f"gain, {board.scale.unit_in_words}"
    return Table.of(("method", "over", gain, "95 % from", "to", "paired seeds"), lines)
