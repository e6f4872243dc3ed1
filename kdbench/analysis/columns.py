"""Columns: how a row reads to people, the same in the terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdbench.analysis.board import Board, Row
from kdbench.analysis.statistics import Interval

MISSING = "-"
_SECONDARY = 10  # the rank of the first secondary column
_PRUNED = 0.8  # of the parameters; above it, zeros are a few rounded or never used weights


@dataclass(frozen=True)
class Column:
    """One column of a leaderboard.

    Attributes:
        header: a word or two, the unit included; a line break where two lines are better.
        cell: what it says of a row, as text.
        meaning: the header explained in a few words; "" where the header says it all.
        rank: how soon it may be left out where space is short: 0 never, higher sooner.
    """

    header: str
    cell: Callable[[Row], str]
    meaning: str = ""
    rank: int = 0

    @property
    def title(self) -> str:
        """The header in one line."""
        return self.header.replace("-\n", "").replace("\n", " ")


def columns(board: Board) -> tuple[Column, ...]:
    """The columns of a board, in reading order; the secondary scores only where some row has them."""
    kept, lower, turned = "score / teacher's", "", ""
    if not board.higher_is_better:
        kept, lower, turned = "teacher's score / score", ", lower is better", ", positive is better"
    found = (
        Column("#", lambda row: str(row.rank) if row.rank else MISSING),
        Column("method", lambda row: row.label),
        Column(score_header(board), lambda row: score(row, board), f"mean ± half its 95 % interval{lower}"),
        Column(
            f"gain over\n{board.baseline}",
            lambda row: gain(row, board),
            f"{board.scale.unit_in_words}{turned}, paired by seed",
        ),
        Column("kept\n%", lambda row: percent(row.retention, 1), kept, 2),
        Column("gap\n%", lambda row: percent(row.gap_recovery, 0), f"way from {board.baseline} to teacher", 4),
        Column("agree\n%", lambda row: percent(row.means.get("agreement"), 1), "same answer as the teacher", 5),
        Column("ECE", lambda row: decimal(row.means.get("ece")), "calibration error", 6),
        Column("params", parameters, rank=7),
        Column("MACs", lambda row: magnitude(row.means.get("macs")), rank=8),
        Column("ms", lambda row: magnitude(row.means.get("latency_ms_p50")), "median latency, batch 1", 9),
        Column("cost", lambda row: ratio(row.flops_ratio), f"training FLOPs / {board.baseline}'s", 1),
        Column(
            "best\nval.",
            lambda row: secondary(row, board, f"best_validation_{board.primary}"),
            "score of the epoch best on validation; not ranked",
            _SECONDARY,
        ),
        Column(
            "opti-\nmism",
            lambda row: secondary(row, board, "optimism"),
            "how far the epoch best on test flatters the last; never ranked",
            _SECONDARY + 1,
        ),
        Column("seeds", lambda row: f"{row.done}/{len(board.seeds)}", rank=3),
        Column("verdict", lambda row: row.verdict.label),
    )
    return tuple(
        column for column in found if column.rank < _SECONDARY or any(column.cell(row) != MISSING for row in board.rows)
    )


def score_header(board: Board) -> str:
    """`accuracy %`; `rmse cycles ↓`, the name alone where it is no share, with an arrow where lower is better."""
    parts = [board.primary.replace("_", " ")]
    return " ".join([*parts, *(["%"] if board.scale.share else []), *([] if board.higher_is_better else ["↓"])])


def score(row: Row, board: Board) -> str:
    """`74.47 ± 0.50`; no half-width for a single seed."""
    return MISSING if row.score is None else _spread(row.score, board)


def teacher_score(board: Board) -> str:
    """The teacher's score, said like the scores of the rows."""
    return MISSING if board.teacher is None else _spread(board.teacher, board)


def _spread(interval: Interval, board: Board) -> str:
    mean = board.scale.number(interval.estimate, board.score_digits)
    return f"{mean} ± {board.scale.number(interval.half_width, board.score_digits)}" if interval.bounded else mean


def gain(row: Row, board: Board) -> str:
    """`+1.90 [+0.70, +3.10]`; no interval for a single seed."""
    difference = row.difference
    if difference is None:
        return MISSING
    ends = (difference.estimate, difference.low, difference.high) if difference.bounded else (difference.estimate,)
    mean, *interval = (board.scale.number(end, board.gain_digits, sign=True) for end in ends)
    return f"{mean} [{', '.join(interval)}]" if interval else mean


def parameters(row: Row) -> str:
    """`1.70k`; `1.65k of 94.4k` where the others were pruned away."""
    whole, nonzero = row.means.get("parameters"), row.means.get("nonzero_parameters")
    if whole is None or nonzero is None or nonzero > _PRUNED * whole:
        return magnitude(whole)
    return f"{magnitude(nonzero)} of {magnitude(whole)}"


def secondary(row: Row, board: Board, metric: str) -> str:
    """The mean of another metric in the unit of the scores, with as many decimals as they have."""
    value = row.means.get(metric)
    return MISSING if value is None else board.scale.number(value, board.score_digits)


def detectable(row: Row, board: Board) -> str:
    """The smallest true gain that such a run finds with 80 % power, to read "no effect" with."""
    if row.effect is None or not row.effect.bounded:
        return MISSING
    digits = board.scale.digits([row.difference])
    return f"{board.scale.number(row.effect.detectable(), digits)} {board.scale.unit_in_words}"


def percent(value: float | None, digits: int) -> str:
    """A fraction in percent, without the sign."""
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def decimal(value: float | None) -> str:
    """Three decimals."""
    return MISSING if value is None else f"{value:.3f}"


def ratio(value: float | None) -> str:
    """`1.87×`"""
    return MISSING if value is None else f"{value:.2f}×" if value < 10 else f"{value:.0f}×"


def magnitude(value: float | None) -> str:
    """Three significant digits with a decimal prefix: 78.3k, 12.4M."""
    if value is None:
        return MISSING
    prefixes = iter(("", "k", "M", "G", "T", "P"))
    prefix = next(prefixes)
    while abs(value) >= 999.5 and prefix != "P":
        value, prefix = value / 1000, next(prefixes)
    if not prefix and value == int(value):
        return str(int(value))
    return f"{value:#.3g}".rstrip(".") + prefix if abs(value) < 999.5 else f"{value:.0f}{prefix}"
