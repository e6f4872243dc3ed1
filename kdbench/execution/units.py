"""Unit: what a worker is given at once, and the order that teachers impose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from kdbench.plan import Cohort, Plan, Trial


@dataclass(frozen=True)
class Unit:
    """One teacher, or students of one cohort."""

    trials: tuple[Trial, ...]

    @property
    def is_teacher(self) -> bool:
        """Whether it is what others learn from; teachers are compared with nobody."""
        return self.trials[0].reference is None

    @cached_property
    def teachers(self) -> tuple[Trial, ...]:
        """What must be trained before."""
        return self.trials[0].teachers if self.is_teacher else Cohort(self.trials).teachers

    @property
    def fingerprints(self) -> list[str]:
        """Of its trials."""
        return [trial.fingerprint for trial in self.trials]

    def __str__(self) -> str:
        head = self.trials[0]
        if self.is_teacher:
            return f"teacher {head.student}, seed {head.seed}"
        return f"{head.task}, {head.pair}, seed {head.seed}: {', '.join(each.method_name for each in self.trials)}"


def units_to_run(plan: Plan, is_finished: Callable[[Trial], bool]) -> list[Unit]:
    """What is missing: teachers that somebody missing learns from, a teacher's own first, then cohorts."""
    students = [_missing(cohort.trials, is_finished) for cohort in plan.cohorts]
    cohorts = [Unit(missing) for missing in students if missing]
    wanted: dict[str, Trial] = {}
    for unit in cohorts:
        _collect(unit.teachers, wanted, is_finished)
    return [*(Unit((teacher,)) for teacher in wanted.values()), *cohorts]


def _missing(trials: Sequence[Trial], is_finished: Callable[[Trial], bool]) -> tuple[Trial, ...]:
    return tuple(trial for trial in trials if not is_finished(trial))


def _collect(teachers: Sequence[Trial], wanted: dict[str, Trial], is_finished: Callable[[Trial], bool]) -> None:
    for teacher in _missing(teachers, is_finished):
        _collect(teacher.teachers, wanted, is_finished)
        wanted.setdefault(teacher.fingerprint, teacher)
