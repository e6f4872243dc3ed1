"""Row, Board, Leaderboard: what a run comes to, as values. `leaderboard` makes them; reports and MLflow show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from kdbench.analysis.effects import Effect
from kdbench.analysis.statistics import Interval
from kdbench.analysis.verdict import Scale, Verdict
from kdbench.measuring.record import Status

Outcome = Status | Literal["missing"]


@dataclass(frozen=True)
class Row:
    """One method with its parameters, on one task and pair, over all its seeds.

    Attributes:
        label: the method's name; where the board has it several times, with the parameters that differ.
        counts: how many seeds ended how; "missing" where another method has a seed that this one lacks.
        reasons: why seeds were skipped, failed or diverged, each once, with its seeds.
        fingerprints: of all its records, in the order of their seeds.
        scores: the primary metric per finished seed, in its own unit.
        gains: the paired difference to the baseline per seed, oriented: positive = better. Empty for the baseline.
        score: mean and interval of `scores`; None where no seed finished. Of an unranked row it is the mean of the
            survivors, which is no estimate of the method.
        effect: what `gains` and the test examples show; None for the baseline and where no seed is paired.
        p_value: that there is no difference to the baseline; of methods, corrected for their number (Holm 1979), of
            controls not: one that may explain the methods' gains should be easier to believe.
        retention: score / teacher's score on the same seeds (inverted where lower is better).
        gap_recovery: (score - baseline) / (teacher - baseline); None where the teacher is no better than the baseline.
        without_dark_knowledge: whether it is KD from the trained teacher, robbed of what it says of single examples.
        against: per applicable control, by its label, what the method gains over it; {} for controls.
        lacking: applicable controls without a result here, by name.
        fidelity_controls: the labels of the controls that its likeness to the teacher is compared with.
        values: every metric and measurement, by its name in the record, per finished seed that has it.
        means: of every metric and measurement but the primary that all finished seeds have.
        flops_ratio, seconds_ratio: training cost alone, the teacher's passes included, relative to the baseline's.
        ranked: whether every seed finished. A method with a missing trial is never averaged over its survivors.
        rank: 1 = best of the board, controls counted too, equal scores sharing a rank; None when unranked, and for
            compressions of the teacher, which are networks of another size.
    """

    label: str
    method: str
    family: str
    control: bool
    without_dark_knowledge: bool
    params: Mapping[str, Any]
    counts: Mapping[Outcome, int]
    reasons: tuple[str, ...]
    fingerprints: tuple[str, ...]
    scores: Mapping[int, float]
    gains: Mapping[int, float]
    score: Interval | None
    effect: Effect | None
    p_value: float | None
    retention: float | None
    gap_recovery: float | None
    against: Mapping[str, Effect]
    lacking: tuple[str, ...]
    fidelity_controls: tuple[str, ...]
    values: Mapping[str, Mapping[int, float]]
    means: Mapping[str, float]
    flops_ratio: float | None
    seconds_ratio: float | None
    ranked: bool
    verdict: Verdict
    rank: int | None = None

    @cached_property
    def difference(self) -> Interval | None:
        """The mean gain and its 95 % interval."""
        return self.effect.interval() if self.effect else None

    @property
    def compression(self) -> bool:
        """Whether it is the teacher itself, made smaller, and no student."""
        return self.family == "compression"

    @property
    def done(self) -> int:
        """How many seeds finished."""
        return self.counts.get("done", 0)

    @property
    def status(self) -> str:
        """`3/3`, or what happened instead: `2 done, 1 diverged`."""
        if self.ranked:
            return f"{self.done}/{self.done}"
        return ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())


@dataclass(frozen=True)
class Board:
    """One task and one teacher-student pair: the best row first, unranked rows last.

    Attributes:
        task: as reports name it; where the suite varies the amount of training data, `data_set` with the amount added.
        train_fraction: the part of the training examples that teacher and student saw.
        teachers: their names; `teacher` is the score of the pair's teacher over seeds, None where nothing measured it.
        seeds: every seed that some method of the board was asked for.
        unit: what the primary metric is counted in: "share", a part of a whole, read in percent and points; another
            word; or "" where its name says it all.
        equivalence_margin: the smallest gain that matters, in that unit.
        baseline: the reference's plugin name; `has_baseline` says whether it finished a seed here.
    """

    task: str
    data_set: str
    train_fraction: float
    pair: str
    student: str
    teachers: tuple[str, ...]
    primary: str
    higher_is_better: bool
    unit: str
    equivalence_margin: float
    seeds: tuple[int, ...]
    teacher: Interval | None
    baseline: str
    has_baseline: bool
    rows: tuple[Row, ...]

    @property
    def scale(self) -> Scale:
        """How this board's scores and gains are said."""
        return Scale(self.primary, self.unit, self.higher_is_better)

    @cached_property
    def score_digits(self) -> int:
        """The decimals that its scores support."""
        return self.scale.digits([row.score for row in self.rows])

    @cached_property
    def gain_digits(self) -> int:
        """The decimals that its gains support."""
        return self.scale.digits([row.difference for row in self.rows])


@dataclass(frozen=True)
class Leaderboard:
    """All boards of a run, ordered by task and pair."""

    suite: str
    boards: tuple[Board, ...]
