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
from kdbench.measuring.calibration import calibration
from kdbench.measuring.cost import count_flops, deployed_cost
from kdbench.measuring.environment import machine_fingerprint
from kdbench.measuring.fidelity import fidelity
from kdbench.measuring.influence import influences
from kdbench.measuring.latency import deployed_speed
from kdbench.measuring.memory import peak_memory_bytes
from kdbench.measuring.quality import scores
from kdbench.measuring.record import Record
from kdbench.plan import LoadedTask, Plan, Skipped, Trial
from kdbench.training.cohort import Trained
from kdbench.training.learner import Learner
from kdbench.training.prediction import Predictions, predict, prepared, relabelled
from kdbench.training.randomness import seeded
from kdbench.training.teachers import TeacherPanel

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
        self._deployed: dict[tuple[str, str], tuple[dict[str, float], dict[str, float]]] = {}
        self._step_flops: dict[str, _StepFlops] = {}

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
        costs, speeds = self._deployed_cost(trial, student)
        metrics = {
            **_quality(loaded, predictions),
            **_validation(loaded, trained),
            **self._against_teachers(trial, loaded, predictions, teachers),
            **costs,
            **self._training_flops(trained, networks),
        }
        with torch.no_grad(), seeded(0, "samples"):
            samples = loaded.task.samples(student, loaded.data, self.device)
        record = self._spent(trained, speeds, status="done", metrics=metrics, samples=samples)
        return Measured(record, predictions, influences(loaded.metrics[0], predictions.answers))

    def _spent(self, trained: Trained, speeds: Mapping[str, float] | None = None, **fields: Any) -> Record:
        """The record of a trial that was trained, to its end or not, with what that cost."""
        measurements = {
            "training_seconds": trained.seconds,
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

    def _against_teachers(
        self, trial: Trial, loaded: LoadedTask, own: Predictions, teachers: Mapping[str, Predictions]
    ) -> dict[str, float]:
        """Fidelity to the teachers it learnt from (without any: to the pair's, which it never saw)."""
        if trial.reference is None:
            return {}
        followed = [teachers[teacher.fingerprint] for teacher in trial.teachers or (trial.reference,)]
        combined = _mean_answer([each.logits for each in followed])
        primary = loaded.metrics[0]
        scored = {f"teacher_{primary.name}": primary.score(teachers[trial.reference.fingerprint].answers)}
        if len(followed) == 1:
            scored[f"own_teacher_{primary.name}"] = primary.score(followed[0].answers)
        elif set(primary.reads) <= {"logits", "targets"}:  # several searches, or sums over positions, have no mean
            scored[f"own_teacher_{primary.name}"] = primary.score({**own.answers, "logits": combined})
        return {**fidelity(own.logits, combined), **scored}

    def _deployed_cost(self, trial: Trial, student: nn.Module) -> tuple[dict[str, float], dict[str, float]]:
        """Cost and speed of the student without auxiliary modules: alike for every method, so measured once."""
        key = (trial.task, trial.student)
        if key not in self._deployed:
            spec = self.plan.tasks[trial.task].data.spec
            speeds = deployed_speed(student, spec, self.device)
            speeds["peak_memory_bytes"] = peak_memory_bytes(student, spec, self.device)
            self._deployed[key] = (deployed_cost(student, spec), speeds)
        return self._deployed[key]

    def _training_flops(self, trained: Trained, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """FLOPs of the whole training, forward and backward, the teachers' passes included."""
        trial = trained.trial
        key = "|".join([trial.identity.rpartition("|")[0], *(teacher.student for teacher in trial.teachers)])
        if key not in self._step_flops:
            probe = _StepProbe(trial, self.plan.tasks[trial.task], self.plan.architectures, networks, self.device)
            self._step_flops[key] = probe.count()
        spent = self._step_flops[key]
        teacher = trained.examples * spent.teachers + len(self.plan.tasks[trial.task].data.train) * spent.relabelling
        return {"training_flops": trained.examples * spent.student + teacher, "teacher_flops": teacher}


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
        self.learner.begin(self.batch, self.panel(self.batch), self.panel.weights(trial))

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


def _validation(loaded: LoadedTask, trained: Trained) -> dict[str, float]:
    name = f"validation_{loaded.validation_metric.name}"
    return {name: trained.curves[name][-1]} if trained.curves else {}  # an untrained teacher has no epoch


def _mean_answer(logits: list[Tensor]) -> Tensor:
    """One teacher's logits, or the log of several teachers' mean probabilities."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([answer.log_softmax(dim=1) for answer in logits]).logsumexp(dim=0) - math.log(len(logits))
