"""Crosses a suite into a plan: what runs, under which fingerprint, what is skipped and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from kdbench.architecture import Architecture
from kdbench.augmentation import parse as parse_augmentation
from kdbench.controls import Controls
from kdbench.data import DataFolders
from kdbench.errors import BadInput, BrokenPlugin, suggestion
from kdbench.hyperparameters import values
from kdbench.method import ALL, Method, Needs
from kdbench.networks import Misfit, Networks
from kdbench.plan import Cohort, LoadedTask, Plan, Skipped, Trial
from kdbench.plugins import Kind, Registry
from kdbench.provenance import digest, engine_digest
from kdbench.recipe import Pair, Recipe
from kdbench.spec import Spec
from kdbench.suite import Suite
from kdbench.task import Data, Task

VALIDATION_SEED = 0  # the split is part of the suite, not of a seed: all seeds are scored on the same examples


def make_plan(suite: Suite, registry: Registry, folders: DataFolders) -> Plan:
    """Crosses tasks, pairs, methods and seeds.

    Raises:
        BadInput, UnknownName, BrokenPlugin, MissingData: something that the suite asks for is not to be had.
    """
    return _Planner(suite, registry, folders).plan()


class _Planner:
    def __init__(self, suite: Suite, registry: Registry, folders: DataFolders) -> None:
        self.suite, self.registry = suite, registry
        for recipe in (recipe for pair in suite.pairs for recipe in self._recipes(pair)):
            for view in recipe.augmentation:  # a mistake must not wait for training
                try:
                    parse_augmentation([view])
                except BadInput as error:
                    raise suite.located(Spec.parse(view), error) from error
        self.methods = [(spec.name, self._create("method", spec)) for spec in (*suite.controls, *suite.methods)]
        self.controls = Controls(registry)
        if suite.add_controls:
            self.methods += self.controls.added(self.methods)
        names = {name for pair in suite.pairs for name in (*pair.teacher, pair.student)}
        self.architectures: dict[str, Architecture] = {
            name: self._create("architecture", Spec.parse(name)) for name in sorted(names)
        }
        self.pretrained = {name: architecture.digest() for name, architecture in self.architectures.items()}
        self.tasks = {task.name: task for spec in suite.tasks for task in self._parts(self._load(spec, folders))}
        _check_margins(suite, sorted({task.metrics[0].name for task in self.tasks.values()}))
        self.networks = Networks(self.architectures, {name: task.data.spec for name, task in self.tasks.items()})

    def _recipes(self, pair: Pair) -> tuple[Recipe, Recipe]:
        """How the pair's student and its teachers are trained."""
        return pair.recipe or self.suite.recipe, pair.teacher_recipe or self.suite.teacher_recipe

    def _recipe(self, task: str, pair: Pair, needs: Needs) -> Recipe:
        """How a method's student is trained: by the pair's recipe, for the epochs of its budget."""
        recipe, teachers = self._recipes(pair)
        epochs = {
            "recipe": recipe.epochs,
            "distillation": recipe.epochs * self.networks.distillation_cost(task, pair.teacher[0], pair.student),
            "none": 0,
        }
        own = teachers if needs.student_architecture == "teacher" else recipe
        return self._stretched(own, task, epochs[needs.budget])

    def _stretched(self, recipe: Recipe, task: str, epochs: float) -> Recipe:
        """The recipe with so many epochs of the whole training data: on a part of it more, so that the steps stay."""
        return recipe.model_copy(update={"epochs": math.ceil(epochs / self.tasks[task].train_fraction - 1e-6)})

    def _create(self, kind: Kind, spec: Spec) -> Any:
        try:
            return self.registry.create(kind, spec)
        except BadInput as error:
            raise self.suite.located(spec, error) from error

    def plan(self) -> Plan:
        cohorts, skipped = [], []
        for task in self.tasks:
            for pair in (pair for pair in self.suite.pairs if pair.serves(self.tasks[task].data_set)):
                for seed in self.suite.seeds:
                    runnable = []
                    for name, method in self.methods:
                        trial, reason = self._trial(task, pair, name, method, seed)
                        if reason is None:
                            runnable.append(trial)
                        else:
                            skipped.append(Skipped(trial, reason))
                    cohorts += _cohorts(runnable)
        if not cohorts:
            reasons = dict.fromkeys(f"{each.trial.method_name}: {each.reason}" for each in skipped)
            raise BadInput("nothing of this can run", hint="\n".join(reasons))
        plan = Plan(self.suite, self.tasks, self.architectures, tuple(cohorts), tuple(skipped), self._provenance())
        _refuse_twins(plan)
        return plan

    def _load(self, spec: Spec, folders: DataFolders) -> LoadedTask:
        task: Task = self._create("task", spec)
        data = with_validation(task.load(folders), self.suite.validation_fraction)
        assert data.validation is not None
        recipes = [recipe for pair in self.suite.pairs if pair.serves(str(spec)) for recipe in self._recipes(pair)]
        if data.spec.positions and any(recipe.augmentation for recipe in recipes):
            hint = "leave the recipe's augmentation empty"
            error = BadInput(f"{spec} labels positions, which crop and flip would leave behind", hint=hint)
            raise self.suite.located(spec, error)
        parts = [data.train.digest(), data.validation.digest(), data.test.digest()]
        identity = digest([spec.name, values(task), self.registry.provenance("task", spec.name), parts])
        return LoadedTask(str(spec), task, data, identity, str(spec))

    def _parts(self, whole: LoadedTask) -> Iterator[LoadedTask]:
        """The task at each of the suite's `train_fractions`."""
        for fraction in self.suite.train_fractions:
            if fraction == 1:
                yield whole
            else:
                name, identity = f"{whole.name} at {100 * fraction:g} %", digest([whole.digest, fraction])
                yield dataclasses.replace(whole, name=name, digest=identity, train_fraction=fraction)

    def _trial(self, task: str, pair: Pair, name: str, method: Method, seed: int) -> tuple[Trial, str | None]:
        label = f"{pair.teacher[0]} -> {pair.student}"
        reference = self._teacher(task, pair, 0, seed)
        needs, reason = method.needs, None
        wanted = len(pair.teacher) if needs.teachers == ALL else int(needs.teachers)
        teachers: tuple[Trial, ...] = ()
        if needs.teacher_architecture == "student":
            teachers = tuple(self._predecessor(task, pair, name, method, seed, index) for index in range(wanted))
        elif needs.teachers == ALL and wanted < 2:
            reason = f"it learns from several teachers and the pair has one ({pair.teacher[0]})"
        elif wanted > len(pair.teacher):
            reason = f"it learns from {wanted} teachers and the pair has {len(pair.teacher)}"
        else:
            trained = needs.teacher_training == "full"
            teachers = tuple(self._teacher(task, pair, index, seed, trained) for index in range(wanted))
        if needs.targets == "teacher" and not needs.teachers:
            raise BrokenPlugin(f"{name} trains on what its first teacher decodes, and has no teacher")
        trial = self._fingerprinted(
            task=task,
            pair=label,
            pair_teachers=pair.teacher,
            student=pair.student if needs.student_architecture == "student" else pair.teacher[0],
            method_name=name,
            method=method,
            recipe=self._recipe(task, pair, needs),
            seed=seed,
            stream="student" if needs.paired else "another student",
            teachers=teachers,
            reference=reference,
            parameters=self.networks.parameters(task, pair.student),
            controls=self.controls.of(method),
            fidelity_controls=self.controls.of_fidelity(method),
        )
        return trial, reason or self._misfit(trial)

    def _teacher(self, task: str, pair: Pair, index: int, seed: int, trained: bool = True) -> Trial:
        recipe = self._recipes(pair)[1]
        recipe = self._stretched(recipe, task, recipe.epochs if trained else 0)
        return self._fingerprinted(
            task=task,
            pair="",
            pair_teachers=(),
            student=pair.teacher[index],
            method_name="teacher",
            method=Method(),
            recipe=recipe,
            seed=seed if self.suite.teachers == "per-seed" else 0,
            stream=f"teacher {index}",
            teachers=(),
            reference=None,
            parameters=0,
        )

    def _predecessor(self, task: str, pair: Pair, name: str, method: Method, seed: int, index: int) -> Trial:
        """A teacher of the student's architecture: trained on hard labels, or by an earlier generation of `method`."""
        earlier = method.teacher_method()
        teachers = () if earlier is None else (self._predecessor(task, pair, name, earlier, seed, index),)
        generation = 0
        while earlier is not None:
            generation, earlier = generation + 1, earlier.teacher_method()
        return self._fingerprinted(
            task=task,
            pair="",
            pair_teachers=(),
            student=pair.student,
            method_name=name if teachers else "teacher",
            method=method.teacher_method() or Method(),
            recipe=self._recipe(task, pair, Needs()),
            seed=seed,
            stream=f"generation {generation} {index}",
            teachers=teachers,
            reference=None,
            parameters=0,
        )

    def _fingerprinted(self, **fields: Any) -> Trial:
        trial = Trial(**fields, selection_epochs=self.suite.selection_epochs)
        is_plugin = type(trial.method) is not Method
        identity = {
            "engine": engine_digest(),
            "task": self.tasks[trial.task].digest,
            "student": [trial.student, self.registry.provenance("architecture", Spec.parse(trial.student).name)],
            "pretrained": self.pretrained[trial.student],
            "method": [trial.method_name, values(trial.method)],
            "plugin": self.registry.provenance("method", trial.method_name) if is_plugin else None,
            "recipe": trial.recipe.model_dump(mode="json"),
            "random": [trial.seed, trial.stream],
            "teachers": [teacher.fingerprint for teacher in trial.teachers],
            "reference": trial.reference.fingerprint if trial.reference else None,
            "compared": [trial.parameters, trial.controls, trial.fidelity_controls, trial.selection_epochs],
        }
        return dataclasses.replace(trial, fingerprint=digest(identity)[:32])

    def _misfit(self, trial: Trial) -> str | None:
        """Why the networks of a trial cannot do what it asks of them: they do not fit the task, or lack a tap."""
        needs = trial.method.needs
        looked_at = [(trial.student, needs.student), *((teacher.student, needs.teacher) for teacher in trial.teachers)]
        if trial.reference is not None:
            looked_at.append((trial.reference.student, ()))
        for architecture, taps in looked_at:
            offered = self.networks.taps(trial.task, architecture)
            if isinstance(offered, Misfit):
                return offered.reason
            for tap in taps:
                if tap not in offered:
                    return f"{architecture} has no tap '{tap}' (it has {', '.join(sorted(offered - {'stages'}))})"
        return None

    def _provenance(self) -> dict[str, Any]:
        names = {name for name, _ in self.methods}
        return {
            "engine": engine_digest(),
            "methods": {name: self.registry.provenance("method", name) for name in sorted(names)},
        }


def _cohorts(trials: list[Trial]) -> list[Cohort]:
    """The trials of one task, pair and seed, apart where their batches differ: in recipe, random streams or targets."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        own = trial.method.needs.targets == "teacher"
        targets = trial.teachers[0].fingerprint if own else "data"
        groups.setdefault((trial.recipe.model_dump_json(), trial.stream, targets), []).append(trial)
    return [Cohort(tuple(group)) for group in groups.values()]


def with_validation(data: Data, fraction: float) -> Data:
    """The data with a validation split: its own, or one cut from train, stratified, the same for every seed."""
    from kdbench.splits import stratified_holdout

    if data.validation is not None:
        return data
    kept, held_out = stratified_holdout(data.train.targets, fraction, VALIDATION_SEED)
    return dataclasses.replace(data, train=data.train.subset(kept), validation=data.train.subset(held_out))


def _refuse_twins(plan: Plan) -> None:
    """Two pairs or methods that come to the same trial would be counted as independent evidence."""
    seen: dict[str, Trial] = {}
    for trial in plan.trials:
        if trial.fingerprint in seen:
            raise BadInput(f"the suite asks twice for the same trial: {trial.identity}")
        seen[trial.fingerprint] = trial


def _check_margins(suite: Suite, primaries: Sequence[str]) -> None:
    """A margin for a metric that ranks nothing is a misspelt one."""
    margins = suite.equivalence_margin
    for name in margins if isinstance(margins, dict) else ():
        if name not in primaries:
            message = f"equivalence_margin: no task of {suite.id} is ranked by '{name}'"
            raise BadInput(message, hint=suggestion(name, primaries))
