"""Trained -> Record: the one place where the test split is opened, once per trial, after training."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture
from kdbench.errors import KdbenchError
from kdbench.hyperparameters import values
from kdbench.measuring.calibration import calibration, calibration_curve
from kdbench.measuring.comparison import Built, against_teachers, inside
from kdbench.measuring.corruption import CorruptedTests
from kdbench.measuring.cost import count_flops, deployed_cost
from kdbench.measuring.environment import machine_fingerprint
from kdbench.measuring.influence import influences
from kdbench.measuring.latency import deployed_speed
from kdbench.measuring.memory import peak_memory_bytes
from kdbench.measuring.quality import scores
from kdbench.measuring.record import Record
from kdbench.measuring.selection import selected_scores
from kdbench.method import Method
from kdbench.plan import LoadedTask, Plan, Skipped, Trial
from kdbench.training.learner import Learner
from kdbench.training.prediction import Predictions, predict, prepared, relabelled
from kdbench.training.randomness import seeded
from kdbench.training.teachers import TeacherPanel
from kdbench.training.trained import Trained

_QUARTERS = (0.125, 0.375, 0.625, 0.875)  # losses may change with progress (FitNets' hint stage): charge the mean


@dataclass(frozen=True)
class Measured:
    """A record, the predictions on the test split behind it, and how much each test example moves the primary score."""

    record: Record
    predictions: Predictions | None = None
    influences: Tensor | None = None

    def tensors(self) -> dict[str, Tensor] | None:
        """What is stored beside the record; None where the student was not measured."""
        if self.predictions is None or self.influences is None:
            return None
        return {**self.predictions.tensors(), "influences": self.influences.float()}


class Measurer:
    """Measures the trials of one plan on one device. What depends on the architecture alone is measured once."""

    def __init__(self, plan: Plan, device: torch.device, environment: Mapping[str, Any]) -> None:
        self.plan, self.device, self.environment = plan, device, environment
        self._deployed: dict[tuple[str, str, Method | None], tuple[dict[str, float], dict[str, float]]] = {}
        self._step_flops: dict[str, _StepFlops] = {}
        self._corrupted = CorruptedTests()

    def skipped(self, skipped: Skipped) -> Record:
        """The record of a trial that cannot run here."""
        return self._record(skipped.trial, status="skipped", reason=skipped.reason)

    def measure(
        self, trained: Trained, networks: Mapping[str, nn.Module], teachers: Mapping[str, Predictions]
    ) -> Measured:
        """Scores the student on the test split and against its teachers.

        `networks`, `teachers`: the teachers and their predictions for the test split, by fingerprint. Where a task
        cannot decode or score what this student answers, that is the failure of this trial alone.
        """
        if trained.student is None:
            return Measured(self._spent(trained, status=trained.status, reason=trained.reason, error=trained.error))
        try:
            return self._measure(trained, trained.student, networks, teachers)
        except KdbenchError:
            raise  # for the user to mend (a library that is missing): the checkpoint is kept
        except Exception as error:
            reason = f"it cannot be measured: {type(error).__name__}: {error}"
            trace = "".join(traceback.format_exception(error))
            return Measured(self._spent(trained, status="failed", reason=reason, error=trace))

    def _measure(
        self,
        trained: Trained,
        student: nn.Module,
        networks: Mapping[str, nn.Module],
        teachers: Mapping[str, Predictions],
    ) -> Measured:
        trial, loaded = trained.trial, self.plan.tasks[trained.trial.task]
        predictions = predict(student, loaded.data.test, loaded, self.device)
        if not predictions.finite:
            return Measured(
                self._spent(trained, status="diverged", reason="its predictions on the test split are not finite")
            )
        primary = loaded.metrics[0]
        costs, speeds = self._deployed_cost(trial, student)
        teacher_costs, teacher_speeds = self._teacher_cost(trial, networks)
        metrics = {
            **_quality(loaded, predictions),
            **validation_score(loaded, trained),
            **selected_scores(trained, student, loaded, primary.score(predictions.answers), self.device),
            **self._corrupted.scores(student, loaded, self.device),
            **against_teachers(trial, loaded, predictions, teachers),
            **self._inside(trial, student, networks),
            **costs,
            "nonzero_parameters": float(sum(int(each.count_nonzero()) for each in student.parameters())),
            **teacher_costs,
            **self._training_flops(trained, networks),
        }
        with torch.no_grad(), seeded(0, "samples"):
            samples = loaded.task.samples(student, loaded.data, self.device)
        record = self._spent(
            trained,
            {**speeds, **teacher_speeds},
            status="done",
            metrics=metrics,
            samples=samples,
            calibration_curve=_curve(predictions),
        )
        return Measured(record, predictions, influences(primary, predictions.answers))

    def _spent(self, trained: Trained, speeds: Mapping[str, float] | None = None, **fields: Any) -> Record:
        """The record of a trial that was trained, to its end or not, with what that cost."""
        tuning = trained.trial.tuning
        measurements = {
            "training_seconds": trained.seconds + (tuning.seconds if tuning else 0),
            **({"tuning_seconds": tuning.seconds} if tuning else {}),
            "teacher_seconds": trained.teacher_seconds,
            "shared_seconds": trained.shared_seconds,
            **(speeds or {}),
        }
        return self._record(
            trained.trial, trained.started, measurements=measurements, curves=dict(trained.curves), **fields
        )

    def _record(self, trial: Trial, started: float | None = None, **fields: Any) -> Record:
        loaded = self.plan.tasks[trial.task]
        metric = loaded.metrics[0]
        times = {} if started is None else {"started": _utc(started), "finished": _utc(time.time())}
        return Record(
            fingerprint=trial.fingerprint,
            suite=self.plan.suite.id,
            task=trial.task,
            pair=trial.pair,
            teachers=trial.pair_teachers,
            student=trial.student,
            method=trial.method_name,
            params=values(trial.method),
            family=trial.method.family,
            paper=trial.method.paper,
            controls=trial.controls,
            fidelity_controls=trial.fidelity_controls,
            without_dark_knowledge=trial.method.without_dark_knowledge,
            data_set=loaded.data_set,
            train_fraction=loaded.train_fraction,
            seed=trial.seed,
            primary=metric.name,
            higher_is_better=metric.higher_is_better,
            unit=metric.unit,
            provenance={
                **times,
                "environment": dict(self.environment),
                "machine": machine_fingerprint(self.environment),
                "data": loaded.digest,
                "teachers": [teacher.fingerprint for teacher in trial.teachers],
                "engine": self.plan.provenance["engine"],
                "plugin": self.plan.provenance["methods"].get(trial.method_name),
                "recipe": trial.recipe.model_dump(mode="json"),
            },
            **fields,
        )

    def _inside(self, trial: Trial, student: nn.Module, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """How alike the student and the pair's teacher are, not only in what they answer."""
        reference, architectures = trial.reference, self.plan.architectures
        if reference is None:
            return {}
        own = Built(student, architectures[trial.student])
        teacher = Built(networks[reference.fingerprint], architectures[reference.student])
        return inside(own, teacher, self.plan.tasks[trial.task], self.device)

    def _deployed_cost(self, trial: Trial, student: nn.Module) -> tuple[dict[str, float], dict[str, float]]:
        """Cost and speed of the student without auxiliary modules: alike for every method, so measured once."""
        method = type(trial.method)
        alike = method.prepare is Method.prepare and method.deploy is Method.deploy
        key = (trial.task, trial.student, None if alike else trial.method)
        if key not in self._deployed:
            spec = self.plan.tasks[trial.task].data.spec
            speeds = deployed_speed(student, spec, self.device)
            speeds["peak_memory_bytes"] = peak_memory_bytes(student, spec, self.device)
            self._deployed[key] = (deployed_cost(student, spec), speeds)
        return self._deployed[key]

    def _teacher_cost(
        self, trial: Trial, networks: Mapping[str, nn.Module]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """What deploying the pair's teacher would cost instead."""
        if trial.reference is None:
            return {}, {}
        costs, speeds = self._deployed_cost(trial.reference, networks[trial.reference.fingerprint])
        return (
            {f"teacher_{name}": costs[name] for name in ("parameters", "macs", "file_bytes")},
            {f"teacher_{name}": speeds[name] for name in ("latency_ms_p50", "peak_memory_bytes")},
        )

    def _training_flops(self, trained: Trained, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """FLOPs of the whole training, forward and backward, the teachers' passes and what tuning took included."""
        trial = trained.trial
        loaded = self.plan.tasks[trial.task].seen(trial.seed)
        key = "|".join([trial.identity.rpartition("|")[0], *(teacher.student for teacher in trial.teachers)])
        if key not in self._step_flops:
            probe = _StepProbe(trial, loaded, self.plan.architectures, networks, self.device)
            self._step_flops[key] = probe.count()
        spent = self._step_flops[key]
        asked = len(loaded.data.train) if "stored_answers" in trial.recipe.speedups else trained.examples
        teacher = asked * spent.teachers + len(loaded.data.train) * spent.relabelling
        own = {"training_flops": trained.examples * spent.student + teacher, "teacher_flops": teacher}
        if trial.tuning is None:
            return own
        return {**own, "training_flops": own["training_flops"] + trial.tuning.flops, "tuning_flops": trial.tuning.flops}


@dataclass(frozen=True)
class _StepFlops:
    """FLOPs per example.

    Attributes:
        student: of students and auxiliary modules, forward and backward, the mean over the course of training.
        teachers: of the teachers' forward passes.
        relabelling: of decoding its target, which is done once.
    """

    student: float
    teachers: float
    relabelling: float


class _StepProbe:
    """Counts the FLOPs per example of one training step on a throw-away learner."""

    def __init__(
        self,
        trial: Trial,
        loaded: LoadedTask,
        architectures: Mapping[str, Architecture],
        networks: Mapping[str, nn.Module],
        device: torch.device,
    ) -> None:
        self.trial, self.loaded, self.device = trial, loaded, device
        self.panel = TeacherPanel([trial], networks, architectures, loaded.task)
        self.learner = Learner(trial, loaded, architectures[trial.student], device)
        self.examples = torch.arange(min(trial.recipe.batch_size, len(loaded.data.train)))
        self.batch = next(prepared(loaded.data.train, [self.examples], loaded.data, device))
        self.learner.begin(self.batch, self.panel(self.batch), self.panel.weights(trial), self.panel.tapped(trial))

    def count(self) -> _StepFlops:
        """What one example costs."""
        teaching = count_flops(lambda: self.panel(self.batch))
        answers = self.panel(self.batch)
        steps = 1000
        learning = [
            count_flops(lambda at=at: self.learner.advance(self.batch, answers, int(at * steps), steps))  # type: ignore[misc]
            for at in _QUARTERS
        ]
        relabelling = count_flops(self._relabel) if self.trial.method.needs.targets == "teacher" else 0
        self.panel.close()
        size = len(self.examples)
        return _StepFlops(math.fsum(learning) / len(learning) / size, teaching / size, relabelling / size)

    def _relabel(self) -> None:
        split, teacher = self.loaded.data.train.subset(self.examples), self.panel.network(self.trial.teachers[0])
        relabelled(self.trial, split, self.loaded, teacher, self.device)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _quality(loaded: LoadedTask, predictions: Predictions) -> dict[str, float]:
    trusted = {} if predictions.labels is None else calibration(predictions.logits, predictions.labels)
    return {**trusted, **scores(loaded.metrics, predictions.answers)}


def _curve(predictions: Predictions) -> dict[str, list[float]]:
    return {} if predictions.labels is None else calibration_curve(predictions.logits, predictions.labels)


def validation_score(loaded: LoadedTask, trained: Trained) -> dict[str, float]:
    """The last epoch's score on the validation split, by its name in a record."""
    name = f"validation_{loaded.validation_metric.name}"
    return {name: trained.curves[name][-1]} if trained.curves else {}  # an untrained teacher has no epoch
