"""Plan, Cohort, Trial, Skipped: what a suite comes to, as values. `planner` makes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from kdbench.architecture import Architecture
from kdbench.errors import BrokenPlugin
from kdbench.hyperparameters import values
from kdbench.method import Method
from kdbench.own_loop import OwnLoop
from kdbench.recipe import Recipe
from kdbench.spec import Spec
from kdbench.suite import Suite
from kdbench.task import Data, Metric, Task


@dataclass(frozen=True)
class LoadedTask:
    """A task with its data in place, the validation split cut, and the digest of all three splits.

    `data_set` is the task as the suite writes it; `train_fraction` the part of its training examples that is used.
    """

    data_set: str
    task: Task
    data: Data
    digest: str
    train_fraction: float = 1.0

    @property
    def name(self) -> str:
        """The task, and the part of its training examples, where that is not all of them."""
        return self.data_set if self.train_fraction == 1 else f"{self.data_set} at {100 * self.train_fraction:g} %"

    def seen(self, seed: int) -> LoadedTask:
        """The task with the training examples that trials of `seed` see: of a seed, larger parts hold the smaller."""
        if self.train_fraction == 1:
            return self
        from kdbench.splits import stratified_order

        targets = self.data.train.targets
        kept = stratified_order(targets, seed)[: max(2, round(self.train_fraction * len(targets)))]
        return replace(self, data=replace(self.data, train=self.data.train.subset(kept.sort().values)))

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """How predictions of this task are scored, the primary metric first."""
        return self.task.metrics(self.data.spec)

    @property
    def validation_metric(self) -> Metric:
        """What validation examples are scored by after each epoch: the first metric that takes no decoding.

        Raises:
            BrokenPlugin: they all take it.
        """
        for metric in self.metrics:
            if not metric.decoded:
                return metric
        raise BrokenPlugin(f"{self.name} has no metric for the validation split: all of them take decoding")


@dataclass(frozen=True)
class TuningCost:
    """What choosing a configuration cost: how many were tried, and what training them took, in FLOPs and in seconds if
    each had been trained alone; teachers' passes included."""

    trials: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Configuration:
    """A method as it is run on one board.

    Attributes:
        method_name, method: the plugin's name and instance.
        learning_rate_factor: what the recipe's learning rate is multiplied by.
        tuning: what choosing it cost; None: the suite states it.
    """

    method_name: str
    method: Method
    learning_rate_factor: float = 1.0
    tuning: TuningCost | None = None

    def __str__(self) -> str:
        return str(Spec(self.method_name, values(self.method)))


BoardKey = tuple[str, str]  # the names of a task and a pair
Configurations = Mapping[BoardKey, Sequence[Configuration]]


@dataclass(frozen=True, eq=False)
class Trial:
    """One network trained by one method under one seed. Teachers are trials too.

    Attributes:
        task, student: as the suite writes them; `pair` reads "TEACHER -> STUDENT", of all `pair_teachers` the first.
        method_name, method: the plugin's name and instance; a teacher trained on hard labels has the name "teacher".
        stream: names the random streams (weights, batch order, augmentation). All students of a seed share
            "student", whatever their method: so they are paired.
        controls, fidelity_controls: the names of those of the plan that may explain its score, and its likeness to the
            teacher.
        parameters: of the pair's student.
        selection_epochs: at how many epochs its weights are kept, for the secondary scores.
        tuning: what choosing its configuration cost, in the tuned track.
        teachers: what it learns from; `reference`: the pair's first teacher, which every student is compared with.
    """

    task: str
    pair: str
    pair_teachers: tuple[str, ...]
    student: str
    method_name: str
    method: Method
    recipe: Recipe
    seed: int
    stream: str
    teachers: tuple[Trial, ...]
    reference: Trial | None
    parameters: int
    selection_epochs: int
    controls: tuple[str, ...] = ()
    fidelity_controls: tuple[str, ...] = ()
    tuning: TuningCost | None = None
    fingerprint: str = field(default="", repr=False)

    @property
    def identity(self) -> str:
        """What a row of a leaderboard and a seed name: the same trial after an edit keeps it."""
        return f"{self.task}|{self.pair}|{Spec(self.method_name, values(self.method))}|{self.seed}"

    @property
    def kept_epochs(self) -> frozenset[int]:
        """After which epochs, counted from 1, its weights are kept for the secondary scores; the last is kept anyhow.

        None of a compressed teacher's, whose weights are masked while it is trained.
        """
        if self.reference is None or self.method.needs.student_architecture == "teacher":
            return frozenset()
        looks = self.selection_epochs
        return frozenset(math.ceil(self.recipe.epochs * look / looks) for look in range(1, looks)) - {
            self.recipe.epochs
        }

    @property
    def watched(self) -> tuple[Trial, ...]:
        """The teachers whose answers it is given at every step; none where they only lend weights or decode targets, or
        where the method asks them itself."""
        return self.teachers if self.method.needs.teacher and not self.owns_loop else ()

    @property
    def owns_loop(self) -> bool:
        """Whether its method asks the networks itself."""
        return isinstance(self.method, OwnLoop)


@dataclass(frozen=True)
class Skipped:
    """A trial that cannot run here, and why: a value, not an error."""

    trial: Trial
    reason: str


@dataclass(frozen=True)
class Cohort:
    """Trials that share batches and teacher passes: same task, seed and random streams, the same recipe but for the
    learning rate, and the same targets (`Needs.targets`, from the same first teacher). One that owns its loop is
    alone."""

    trials: tuple[Trial, ...]

    @property
    def head(self) -> Trial:
        """Any of the trials: they agree in task, seed, stream and recipe, but for the learning rate."""
        return self.trials[0]

    @cached_property
    def teachers(self) -> tuple[Trial, ...]:
        """Every teacher that some trial learns from or is compared with, once each."""
        found: dict[str, Trial] = {}
        for trial in self.trials:
            for teacher in (*trial.teachers, *([trial.reference] if trial.reference else [])):
                found.setdefault(teacher.fingerprint, teacher)
        return tuple(found.values())


@dataclass(frozen=True)
class Plan:
    """All that a suite asks for: what runs, in which cohorts, and what is skipped."""

    suite: Suite
    tasks: Mapping[str, LoadedTask]
    architectures: Mapping[str, Architecture]
    cohorts: tuple[Cohort, ...]
    skipped: tuple[Skipped, ...]
    provenance: Mapping[str, Any]

    @property
    def trials(self) -> Iterator[Trial]:
        """The runnable trials, cohort by cohort."""
        return (trial for cohort in self.cohorts for trial in cohort.trials)

    @cached_property
    def teachers(self) -> tuple[Trial, ...]:
        """All teachers in the order in which they must be trained: a teacher's own teachers come first."""
        found: dict[str, Trial] = {}
        for cohort in self.cohorts:
            for teacher in cohort.teachers:
                for trial in (*_ancestors(teacher), teacher):
                    found.setdefault(trial.fingerprint, trial)
        return tuple(found.values())


def _ancestors(trial: Trial) -> Iterator[Trial]:
    for teacher in trial.teachers:
        yield from _ancestors(teacher)
        yield teacher


def cohorts(trials: Sequence[Trial]) -> list[Cohort]:
    """The trials of one task, pair and seed, apart where their batches differ (in recipe, random streams or targets) or
    a method owns its loop."""
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        own = trial.method.needs.targets == "teacher"
        targets = trial.teachers[0].fingerprint if own else "data"
        recipe = trial.recipe.model_dump_json(exclude={"learning_rate"})
        alone = trial.fingerprint if trial.owns_loop else ""
        groups.setdefault((recipe, trial.stream, targets, alone), []).append(trial)
    return [Cohort(tuple(group)) for group in groups.values()]
