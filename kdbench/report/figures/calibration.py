"""Reliability diagrams: how often a student is right when it is so sure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board
from kdbench.analysis.columns import MISSING, decimal, percent
from kdbench.measuring.record import Record
from kdbench.report.figures.canvas import BLUE, INK, SKY, Chart, draw
from kdbench.report.figures.panels import panels, panels_height
from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST_SHARE = 0.01  # of all answers: fewer say little about how often such answers are right
_BINS = 15  # of equal width, as the calibration error has


@dataclass(frozen=True)
class _Bin:
    """Test examples of similar confidence, over all seeds: what was claimed, what came true, and their share of all."""

    confidence: float
    accuracy: float
    share: float


def reliability(board: Board, records: Sequence[Record]) -> Chart | None:
    """One panel per row; None where no trial kept a calibration curve."""
    kept = {record.fingerprint: record for record in records if record.status == "done"}
    bins: dict[str, list[_Bin]] = {}
    for row in board.rows:
        curves = [kept[fingerprint].calibration_curve for fingerprint in row.fingerprints if fingerprint in kept]
        if pooled := _pooled([curve for curve in curves if curve]):
            bins[row.label] = pooled
    if not bins:
        return None
    title = "Calibration"

    def paint(figure: Figure) -> None:
        panels(figure, list(bins), lambda axes, name: _panel(axes, bins[name]), "confidence %", "right %")

    errors = {row.label: decimal(row.means.get("ece")) for row in board.rows}
    return Chart(
        title,
        "Each dot stands for the answers given with about the same confidence, its size for how many they are; on the "
        "diagonal confidence is deserved, below it the student is too sure of itself. All seeds together, "
        "without dots for less than 1 % of the answers.",
        draw(f"{title}: {board.task}, {board.pair}", panels_height(len(bins), 1.35), paint),
        _data(bins, errors),
    )


def _pooled(curves: Sequence[Mapping[str, Sequence[float]]]) -> list[_Bin]:
    """The answers of all seeds, by confidence, each seed weighing as much as the examples it has there."""
    places: dict[int, list[_Bin]] = defaultdict(list)
    for curve in curves:
        for confidence, accuracy, share in zip(curve["confidence"], curve["accuracy"], curve["share"], strict=True):
            places[min(int(confidence * _BINS), _BINS - 1)].append(_Bin(confidence, accuracy, share))
    return [_mean(places[place], len(curves)) for place in sorted(places)]


def _mean(own: Sequence[_Bin], seeds: int) -> _Bin:
    weight = math.fsum(each.share for each in own)
    confidence = math.fsum(each.confidence * each.share for each in own) / weight
    accuracy = math.fsum(each.accuracy * each.share for each in own) / weight
    return _Bin(confidence, accuracy, weight / seeds)


def _panel(axes: Axes, bins: Sequence[_Bin]) -> None:
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    bins = [each for each in bins if each.share >= _LEAST_SHARE]
    confidence, accuracy = [100 * each.confidence for each in bins], [100 * each.accuracy for each in bins]
    axes.plot(confidence, accuracy, color=BLUE, linewidth=1)
    axes.scatter(confidence, accuracy, s=[6 + 60 * each.share for each in bins], color=SKY, edgecolor=BLUE, zorder=3)
    axes.set_xlim(0, 105)
    axes.set_ylim(0, 105)
    axes.set_xticks([0, 50, 100])
    axes.set_yticks([0, 50, 100])


def _data(bins: Mapping[str, Sequence[_Bin]], errors: Mapping[str, str]) -> Table:
    lines = [
        (
            name if not place else "",
            percent(each.confidence, 1),
            percent(each.accuracy, 1),
            percent(each.share, 1),
            (errors.get(name) or MISSING) if not place else "",
        )
        for name, own in bins.items()
        for place, each in enumerate(own)
    ]
    return Table.of(("", "confidence %", "right %", "share of answers %", "ECE"), lines)
