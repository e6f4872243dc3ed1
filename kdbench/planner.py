"""Crosses a suite into a plan: what runs, under which fingerprint, what is skipped and why."""

from __future__ import annotations

import copy
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
from kdbench.own_loop import OwnLoop
from kdbench.plan import Configuration, Configurations, LoadedTask, Plan, Skipped, Trial, cohorts
from kdbench.plugins import Kind, Registry
from kdbench.provenance import digest, engine_digest
from kdbench.recipe import Pair, Recipe
from kdbench.spec import Spec
from kdbench.suite import Suite
from kdbench.task import Task

TUNING_SEED = 2**32  # the first that no suite can ask for


def make_plan(suite: Suite, registry: Registry, folders: DataFolders) -> Plan:
    """Crosses tasks, pairs, methods and seeds.

    Raises:
        BadInput, UnknownName, BrokenPlugin, MissingData: something that the suite asks for is not to be had.
    """
    return Planner(suite, registry, folders).plan()


class Planner:
    """Crosses tasks, pairs, methods and seeds of a suite, its plugins and data loaded once.

    Attributes:
        own: on every board the suite's own configurations, the controls that apply to them added.

    Raises:
        BadInput, UnknownName, BrokenPlugin, MissingData: something that the suite asks for is not to be had.
    """

    def __init__(self, suite: Suite, registry: Registry, folders: DataFolders) -> None:
        self.suite, self.registry = suite, registry
        for recipe in (recipe for pair in suite.pairs for recipe in self._recipes(pair)):
            for view in recipe.augmentation:  # a mistake must not wait for training
                try:
                    parse_augmentation([view])
                except BadInput as error:
                    raise suite.located(Spec.parse(view), error) from error
        methods = [(spec.name, self._create("method", spec)) for spec in (*suite.controls, *suite.methods)]
        self.controls = Controls(registry)
        if suite.add_controls:
            methods += self.controls.added(methods)
        names = {name for pair in suite.pairs for name in (*pair.teacher, pair.student)}
        self.architectures: dict[str, Architecture] = {
            name: self._create("architecture", Spec.parse(name)) for name in sorted(names)
        }
        self.pretrained = {name: architecture.digest() for name, architecture in self.architectures.items()}
        self.tasks = {task.name: task for spec in suite.tasks for task in self._parts(self._load(spec, folders))}
        _check_margins(suite, sorted({task.metrics[0].name for task in self.tasks.values()}))
        self.networks = Networks(self.architectures, {name: task.data.spec for name, task in self.tasks.items()})
        configurations = [Configuration(name, method) for name, method in methods]
        self.own: Configurations = {(task, str(pair)): configurations for task, pair in self._boards()}

    def _boards(self) -> Iterator[tuple[str, Pair]]:
        for task in self.tasks:
            yield from ((task, pair) for pair in self.suite.pairs if pair.serves(self.tasks[task].data_set))

    def _recipes(self, pair: Pair) -> tuple[Recipe, Recipe]:
        """How the pair's student and its teachers are trained."""
        return pair.recipe or self.suite.recipe, pair.teacher_recipe or self.suite.teacher_recipe

    def _recipe(self, task: str, pair: Pair, needs: Needs) -> Recipe:
        """How a method's student is trained: by the pair's recipe, for the epochs of its budget."""
        recipe, teachers = self._recipes(pair)
        match needs.budget:
            case "recipe":
                times = 1.0
            case "none":
                times = 0.0
            case "distillation":
                cost = self.networks.distillation_cost(task, pair.teacher[0], pair.student)
                passes = 1 / recipe.epochs if "stored_answers" in recipe.speedups else 1.0
                times = 1 + passes * (cost - 1)
            case number:
                times = number
        own = teachers if needs.student_architecture == "teacher" else recipe
        return self._stretched(own, task, recipe.epochs * times)

    def _stretched(self, recipe: Recipe, task: str, epochs: float) -> Recipe:
        """The recipe with so many epochs of the whole training data: on a part of it more, so that the steps stay."""
        return recipe.model_copy(update={"epochs": math.ceil(epochs / self.tasks[task].train_fraction - 1e-6)})

    def _create(self, kind: Kind, spec: Spec) -> Any:
        try:
            return self.registry.create(kind, spec)
        except BadInput as error:
            raise self.suite.located(spec, error) from error

    def for_tuning(self) -> Planner:
        """The same, to choose configurations: on a seed that no suite can use, by the last epoch alone."""
        other = copy.copy(self)
        other.suite = self.suite.model_copy(update={"seeds": (TUNING_SEED,), "selection_epochs": 0})
        return other

    def plan(self, configurations: Configurations | None = None) -> Plan:
        """What is to run: `configurations`, or the suite's own.

        Raises:
            BadInput: nothing of it can run, or two are the same.
        """
        plan = self.cross(configurations or self.own)
        if not plan.cohorts:
            reasons = dict.fromkeys(f"{each.trial.method_name}: {each.reason}" for each in plan.skipped)
            raise BadInput("nothing of this can run", hint="\n".join(reasons))
        _refuse_twins(plan)
        return plan

    def cross(self, configurations: Configurations) -> Plan:
        """The configurations of every board with every seed, whether any of it can run or not."""
        crossed, skipped = [], []
        for task, pair in self._boards():
            for seed in self.suite.seeds:
                runnable = []
                for configuration in configurations[task, str(pair)]:
                    trial, reason = self._trial(task, pair, configuration, seed)
                    if reason is None:
                        runnable.append(trial)
                    else:
                        skipped.append(Skipped(trial, reason))
                crossed += cohorts(runnable)
        return Plan(self.suite, self.tasks, self.architectures, tuple(crossed), tuple(skipped), self._provenance())

    def _load(self, spec: Spec, folders: DataFolders) -> LoadedTask:
        from kdbench.splits import with_validation

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
        return LoadedTask(str(spec), task, data, identity)

    def _parts(self, whole: LoadedTask) -> Iterator[LoadedTask]:
        """The task at each of the suite's `train_fractions`."""
        for fraction in self.suite.train_fractions:
            identity = whole.digest if fraction == 1 else digest([whole.digest, fraction])
            yield dataclasses.replace(whole, digest=identity, train_fraction=fraction)

    def _trial(self, task: str, pair: Pair, configuration: Configuration, seed: int) -> tuple[Trial, str | None]:
        name, method = configuration.method_name, configuration.method
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
        elif needs.teacher_training == "none" and not self._recipes(pair)[1].epochs:
            reason = "teachers are taken as they are built (teacher_recipe: epochs 0): none of them is untrained"
        else:
            trained = needs.teacher_training == "full"
            teachers = tuple(self._teacher(task, pair, index, seed, trained) for index in range(wanted))
        if needs.targets == "teacher" and not needs.teachers:
            raise BrokenPlugin(f"{name} trains on what its first teacher decodes, and has no teacher")
        if needs.data == "none" and not isinstance(method, OwnLoop):
            raise BrokenPlugin(f"{name} wants no training data, and does not own its loop (kdbench.OwnLoop)")
        recipe = self._recipe(task, pair, needs)
        trial = self._fingerprinted(
            task=task,
            pair=str(pair),
            pair_teachers=pair.teacher,
            student=pair.student if needs.student_architecture == "student" else pair.teacher[0],
            method_name=name,
            method=method,
            recipe=recipe.model_copy(
                update={"learning_rate": recipe.learning_rate * configuration.learning_rate_factor}
            ),
            seed=seed,
            stream="student" if needs.paired else "another student",
            teachers=teachers,
            reference=reference,
            parameters=self.networks.parameters(task, pair.student),
            controls=self.controls.of(method),
            fidelity_controls=self.controls.of_fidelity(method),
            tuning=configuration.tuning,
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
            "tuning": [trial.tuning.trials, trial.tuning.flops] if trial.tuning else None,
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
                    names = sorted(name for name in offered if name != "stages" and not name.startswith("gradient"))
                    return f"{architecture} has no tap '{tap}' (it has {', '.join(names)})"
        return None

    def _provenance(self) -> dict[str, Any]:
        names = {each.method_name for configurations in self.own.values() for each in configurations}
        return {
            "engine": engine_digest(),
            "methods": {name: self.registry.provenance("method", name) for name in sorted(names)},
        }


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
