"""Ranks: which methods are better across tasks, where scores of different metrics cannot be averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.verdict import SIGNIFICANCE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LEAST_TASKS, _LEAST_METHODS = 2, 3
_MANY_TASKS = 10  # below it the Friedman test's chi-square is rough and its power low (Demsar 2006, section 3.2.2)


@dataclass(frozen=True)
class Ranking:
    """The methods that finished on every task, ranked on each of them (Demsar 2006, JMLR 7).

    Attributes:
        tasks: the boards that count, as "task: pair".
        mean_ranks: by label, best first; 1 is the best rank, and equal scores share the mean of theirs.
        p_value: that all methods rank alike (Friedman 1937).
        critical_difference: how far two mean ranks must be apart to be told apart at 5 % (Nemenyi 1963).
        alike: groups of two or more methods, none of which can be told from another; best first, they may overlap.
    """

    tasks: tuple[str, ...]
    mean_ranks: Mapping[str, float]
    p_value: float
    critical_difference: float
    alike: tuple[tuple[str, ...], ...]

    @property
    def differ(self) -> bool:
        """Whether any difference between the methods is shown at all; without it groups mean nothing."""
        return self.p_value < SIGNIFICANCE

    @property
    def note(self) -> str:
        """What the test shows, in a sentence, and how much the number of tasks lets it show."""
        ranked = f"{len(self.mean_ranks)} methods on {len(self.tasks)} tasks"
        shown = "their ranks differ" if self.differ else "no difference between their ranks is shown"
        note = f"{ranked}: {shown} (Friedman test, p = {self.p_value:.2g})."
        if len(self.tasks) >= _MANY_TASKS:
            return note
        if self.critical_difference > len(self.mean_ranks) - 1:
            return f"{note} So few tasks cannot tell even the first from the last."
        return f"{note} With so few tasks only large differences show."


def ranking(leaderboard: Leaderboard) -> Ranking | None:
    """The methods, baseline and controls included, across the boards of a run.

    Of one data set and pair with several parts of the training data, the largest part counts: the others are no tasks
    of their own. None where fewer than two boards remain, or fewer than three methods finished on all of them.
    """
    boards = _tasks(leaderboard)
    finished = [{row.label: row for row in board.rows if row.ranked and row.score} for board in boards]
    labels = [label for label in (finished[0] if finished else {}) if all(label in rows for rows in finished)]
    if len(boards) < _LEAST_TASKS or len(labels) < _LEAST_METHODS:
        return None
    import numpy as np
    from scipy.stats import rankdata

    losses = np.array(
        [[_loss(board, rows[label]) for label in labels] for board, rows in zip(boards, finished, strict=True)]
    )
    means = rankdata(losses, axis=1).mean(axis=0)
    mean_ranks = {labels[place]: float(means[place]) for place in np.argsort(means, kind="stable")}
    critical_difference = _critical_difference(len(labels), len(boards))
    return Ranking(
        tasks=tuple(f"{board.task}: {board.pair}" for board in boards),
        mean_ranks=mean_ranks,
        p_value=_friedman(losses),
        critical_difference=critical_difference,
        alike=_alike(mean_ranks, critical_difference),
    )


def _tasks(leaderboard: Leaderboard) -> list[Board]:
    largest: dict[tuple[str, str], Board] = {}
    for board in leaderboard.boards:
        key = (board.data_set, board.pair)
        if key not in largest or largest[key].train_fraction < board.train_fraction:
            largest[key] = board
    return list(largest.values())


def _loss(board: Board, row: Row) -> float:
    """The score, turned so that lower is better, and rounded to what arithmetic can tell apart: ties are ties."""
    assert row.score is not None
    estimate = -row.score.estimate if board.higher_is_better else row.score.estimate
    return float(f"{estimate:.12g}")


def _friedman(losses: NDArray[np.float64]) -> float:
    """`losses` [tasks, methods]; 1 where every task ties all methods, of which the statistic is 0 / 0."""
    from scipy.stats import friedmanchisquare

    if (losses == losses[:, :1]).all():
        return 1.0
    return float(friedmanchisquare(*losses.T).pvalue)


def _critical_difference(methods: int, tasks: int) -> float:
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - SIGNIFICANCE, methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * tasks))


def _alike(mean_ranks: Mapping[str, float], critical_difference: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of methods, which are in order of mean rank, whose ends are not told apart (Nemenyi 1963)."""
    labels, ranks = list(mean_ranks), list(mean_ranks.values())
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank <= critical_difference)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return tuple(tuple(labels[first : last + 1]) for first, last in runs)
