"""Trained -> Record: the one place where the test split is opened, once per trial, after training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture
from kdbench.hyperparameters import values
from kdbench.measuring.calibration import calibration
from kdbench.measuring.cost import count_flops, deployed_cost
from kdbench.measuring.environment import machine_fingerprint
from kdbench.measuring.fidelity import fidelity
from kdbench.measuring.latency import deployed_speed
from kdbench.measuring.memory import peak_memory_bytes
from kdbench.measuring.quality import score
from kdbench.measuring.record import Record
from kdbench.plan import LoadedTask, Plan, Skipped, Trial
from kdbench.training.cohort import Trained
from kdbench.training.learner import Learner
from kdbench.training.prediction import PreparedBatch, predict
from kdbench.training.teachers import TeacherPanel

_QUARTERS = (0.125, 0.375, 0.625, 0.875)  # losses may change with progress (FitNets' hint stage): charge the mean


@dataclass(frozen=True)
class Measured:
    """A record, and the per-example predictions behind it: logits [examples, classes], targets [examples]."""

    record: Record
    predictions: Mapping[str, Tensor] | None = None


class Measurer:
    """Measures the trials of one plan on one device. What depends on the architecture alone is measured once."""

    def __init__(self, plan: Plan, device: torch.device, environment: Mapping[str, Any]) -> None:
        self.plan, self.device, self.environment = plan, device, environment
        self._deployed: dict[tuple[str, str], tuple[dict[str, float], dict[str, float]]] = {}
        self._step_flops: dict[str, tuple[float, float]] = {}

    def skipped(self, skipped: Skipped) -> Record:
        """The record of a trial that cannot run here."""
        return self._record(skipped.trial, status="skipped", reason=skipped.reason)

    def measure(self, trained: Trained, networks: Mapping[str, nn.Module], answers: Mapping[str, Tensor]) -> Measured:
        """Scores the student on the test split and against its teachers.

        `networks`, `answers`: the teachers and their logits on the test split, by fingerprint.
        """
        if trained.student is None:
            return Measured(self._spent(trained, status=trained.status, reason=trained.reason, error=trained.error))
        trial, loaded = trained.trial, self.plan.tasks[trained.trial.task]
        logits = predict(trained.student, loaded.data.test, loaded.data, self.device)
        if not logits.isfinite().all():
            return Measured(
                self._spent(trained, status="diverged", reason="its predictions on the test split are not finite")
            )
        costs, speeds = self._deployed_cost(trial, trained.student)
        metrics = {
            **_quality(loaded, logits),
            **_validation(loaded, trained),
            **self._against_teachers(trial, loaded, logits, answers),
            **costs,
            **self._training_flops(trained, networks),
        }
        record = self._spent(trained, speeds, status="done", metrics=metrics)
        return Measured(record, {"logits": logits, "targets": loaded.data.test.targets})

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
        metric = loaded.task.metrics(loaded.data.spec)[0]
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
        self, trial: Trial, loaded: LoadedTask, logits: Tensor, answers: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """Fidelity to the teachers it learnt from (without any: to the pair's, which it never saw)."""
        if trial.reference is None:
            return {}
        own = trial.teachers or (trial.reference,)
        combined = _mean_answer([answers[teacher.fingerprint] for teacher in own])
        primary = loaded.task.metrics(loaded.data.spec)[0]
        targets = loaded.data.test.targets
        return {
            **fidelity(logits, combined),
            f"teacher_{primary.name}": primary.compute(answers[trial.reference.fingerprint], targets),
            f"own_teacher_{primary.name}": primary.compute(combined, targets),
        }

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
        student, teacher = (trained.examples * flops for flops in self._step_flops[key])
        return {"training_flops": student + teacher, "teacher_flops": teacher}


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
        self.panel = TeacherPanel([trial], networks, architectures)
        self.learner = Learner(trial, loaded, architectures[trial.student], device)
        first = next(loaded.data.train.batches([torch.arange(min(trial.recipe.batch_size, len(loaded.data.train)))]))
        inputs = loaded.data.prepare(first.inputs.to(device))
        self.batch = PreparedBatch(inputs, first.targets.to(device), first.indices.to(device))
        self.learner.begin(self.batch, self.panel(inputs))

    def count(self) -> tuple[float, float]:
        """Per example: of the students and auxiliary modules (forward and backward, mean over the course of
        training), and of the teachers' forward passes."""
        teaching = count_flops(lambda: self.panel(self.batch.inputs))
        answers = self.panel(self.batch.inputs)
        steps = 1000
        learning = [
            count_flops(lambda at=at: self.learner.advance(self.batch, answers, int(at * steps), steps))  # type: ignore[misc]
            for at in _QUARTERS
        ]
        self.panel.close()
        return math.fsum(learning) / len(learning) / len(self.batch), teaching / len(self.batch)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _quality(loaded: LoadedTask, logits: Tensor) -> dict[str, float]:
    targets = loaded.data.test.targets
    return {**score(loaded.task.metrics(loaded.data.spec), logits, targets), **calibration(logits, targets)}


def _validation(loaded: LoadedTask, trained: Trained) -> dict[str, float]:
    name = f"validation_{loaded.task.metrics(loaded.data.spec)[0].name}"
    return {name: trained.curves[name][-1]}


def _mean_answer(logits: list[Tensor]) -> Tensor:
    """One teacher's logits, or the log of several teachers' mean probabilities."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([answer.log_softmax(dim=1) for answer in logits]).logsumexp(dim=0) - math.log(len(logits))
