"""Learning curves: the validation score over a training, beside that of the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board
from kdbench.measuring.record import Record
from kdbench.report.figures.canvas import BLUE, INK, Chart, draw
from kdbench.report.figures.panels import panels, panels_height
from kdbench.report.figures.scale import far_out, off_the_scale
from kdbench.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PREFIX = "validation_"
_POINTS = 40  # that are drawn of a curve: more cannot be told apart on this width
_TENTHS = tuple(range(10, 101, 10))
_SETTLED = 50  # percent of a training after which a curve decides where the axes begin: all of them begin low


@dataclass(frozen=True)
class _Curve:
    """Per drawn epoch how much of the training is done (percent), the mean over seeds and the seeds' extremes."""

    done: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    epochs: int

    def at(self, done: float) -> float:
        """The mean where the training was nearest to `done` percent."""
        return min(zip(self.done, self.mean, strict=True), key=lambda point: abs(point[0] - done))[1]


def learning_curves(board: Board, records: Sequence[Record]) -> Chart | None:
    """One panel per row; None where no trial kept a validation score."""
    kept = {record.fingerprint: record for record in records if record.status == "done"}
    metric = next((name for each in kept.values() for name in each.curves if name.startswith(_PREFIX)), "")
    factor = board.scale.factor if metric == _PREFIX + board.primary else 1.0
    curves: dict[str, _Curve] = {}
    for row in board.rows:
        own = [kept[fingerprint].curves.get(metric, []) for fingerprint in row.fingerprints if fingerprint in kept]
        if curve := _over_seeds(own, factor):
            curves[row.label] = curve
    if not curves:
        return None
    labels = [row.label for row in board.rows if row.method == board.baseline and row.label in curves]
    baseline = curves[labels[0]] if labels else None
    outside = far_out({label: curve.mean[-1] for label, curve in curves.items()})
    drawn = {label: curve for label, curve in curves.items() if label not in outside}
    title = "Learning curves"
    said = metric.replace("_", " ") + (" %" if factor != 1 else "")

    def paint(figure: Figure) -> None:
        panels(figure, list(drawn), lambda axes, name: _panel(axes, drawn[name], baseline), "training done %", said)
        figure.axes[0].set_ylim(*_limits(list(drawn.values())))

    return Chart(
        title,
        f"Mean over seeds; the band reaches from the lowest to the highest seed. Dashed: {board.baseline}."
        + off_the_scale({label: f"{curves[label].mean[-1]:.1f} at the end" for label in curves if label in outside}),
        draw(f"{title}: {board.task}, {board.pair}", panels_height(len(drawn)), paint),
        _data(said, curves),
    )


def _over_seeds(own: Sequence[Sequence[float]], factor: float) -> _Curve | None:
    """The curve of all seeds that have it, up to the epoch that all of them reached; None where there is none."""
    reached = min((len(values) for values in own), default=0)
    if not reached:
        return None
    step = -(-reached // _POINTS)
    epochs = range(reached, 0, -step)[::-1]  # the last one always
    at = [[values[epoch - 1] * factor for values in own] for epoch in epochs]
    return _Curve(
        tuple(100 * epoch / reached for epoch in epochs),
        tuple(map(statistics.fmean, at)),
        tuple(map(min, at)),
        tuple(map(max, at)),
        reached,
    )


def _limits(curves: Sequence[_Curve]) -> tuple[float, float]:
    shown = [
        value
        for curve in curves
        for done, *values in zip(curve.done, curve.low, curve.high, strict=True)
        for value in values
        if done >= _SETTLED
    ]
    air = 0.05 * (max(shown) - min(shown)) or 1e-3
    return min(shown) - air, max(shown) + air


def _panel(axes: Axes, curve: _Curve, baseline: _Curve | None) -> None:
    axes.fill_between(curve.done, curve.low, curve.high, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(curve.done, curve.mean, color=BLUE, linewidth=1.3)
    if baseline and baseline is not curve:
        axes.plot(baseline.done, baseline.mean, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set_xticks([0, 50, 100])


def _data(said: str, curves: Mapping[str, _Curve]) -> Table:
    digits = 1 if max(abs(value) for curve in curves.values() for value in curve.mean) >= 10 else 3
    lines = [
        (label, str(curve.epochs), *(f"{curve.at(done):.{digits}f}" for done in _TENTHS))
        for label, curve in curves.items()
    ]
    return Table.of((said, "epochs", *(f"{done} %" for done in _TENTHS)), lines)
