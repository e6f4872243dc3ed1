"""Runs a plan in this process: cohort by cohort, only what is missing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from kdbench.errors import KdbenchError, StoreError
from kdbench.execution.limits import DeviceUse
from kdbench.execution.run_lock import in_turn
from kdbench.measuring.environment import environment
from kdbench.measuring.measure import Measurer
from kdbench.measuring.record import Record
from kdbench.measuring.validation import ValidationMeasurer
from kdbench.plan import Cohort, LoadedTask, Plan, Trial
from kdbench.profiling import span
from kdbench.splits import resident
from kdbench.store.run_folder import RunFolder
from kdbench.store.trial_files import TrialFiles, teacher_files
from kdbench.training.cohort import train
from kdbench.training.memory import DeviceMemory, Forecaster
from kdbench.training.observer import Observer
from kdbench.training.prediction import Predictions
from kdbench.training.ranks import ALONE, Ranks
from kdbench.training.trained import Trained


class TeacherFailed(KdbenchError):
    """A teacher did not train to its end, so nobody can learn from it."""

    @classmethod
    def of(cls, teacher: Trial, record: Record) -> TeacherFailed:
        """With what its record says."""
        return cls(f"its teacher {teacher.student} (seed {teacher.seed}) {record.status}: {record.reason}")


@dataclass(frozen=True)
class Teacher:
    """A trained teacher and its predictions for the test split; none where that stays closed."""

    network: nn.Module
    predictions: Predictions | None


def is_finished(record: Record | None) -> bool:
    """Whether a trial needs no further run: a failure is tried again, a divergence would only diverge again."""
    return record is not None and record.status != "failed"


def epochs_to_train(plan: Plan, run: RunFolder, out: Path) -> int:
    """The epochs, summed over networks, of all students and teachers without a finished record."""
    students = [trial for trial in plan.trials if not is_finished(run.trial(trial.fingerprint).record())]
    teachers = [trial for trial in plan.teachers if not is_finished(teacher_files(out, trial.fingerprint).record())]
    return sum(trial.recipe.epochs for trial in [*students, *(teachers if students else [])])


def execute(
    plan: Plan,
    run: RunFolder,
    out: Path,
    device: torch.device,
    observer: Observer,
    *,
    validation_only: bool = False,
    use: DeviceUse | None = None,
) -> Iterator[list[Record]]:
    """Trains, measures and stores what has no record yet; yields the new records, cohort by cohort.

    `out`: the folder of all runs; trained teachers are shared between them. `validation_only`: of students and teachers
    nothing but the validation score is measured, the test split is not opened, and no student is kept. `use`: of the
    device.

    Raises:
        StoreError: results cannot be written. Everything already stored is kept.
    """
    runner = CohortRunner(plan, run, out, device, observer, validation_only, use=use)
    yield runner.begin()
    for cohort in plan.cohorts:
        missing = tuple(trial for trial in cohort.trials if not is_finished(runner.files(trial).record()))
        if missing:
            yield runner.run_cohort(Cohort(missing))


class CohortRunner:
    """Trains, measures and stores cohorts and teachers of a plan in this process, or says why it cannot be done."""

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        out: Path,
        device: torch.device,
        observer: Observer,
        validation_only: bool,
        ranks: Ranks = ALONE,
        use: DeviceUse | None = None,
    ) -> None:
        use = use or DeviceUse()
        self.ranks, self._streams = ranks, use.streams
        self._memory = DeviceMemory(device, use.cohort_memory, use.sharers)
        self._forecaster = Forecaster(plan.architectures, self._memory, observer.note, ranks.size, use.streams)
        self._resident: dict[str, LoadedTask] = {}
        self.plan, self.run, self.out, self.device, self.observer = plan, run, out, device, observer
        self.validation_only = validation_only
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # else a trial's bits would depend on its company
        measurer = ValidationMeasurer if validation_only else Measurer
        self.measurer = measurer(plan, device, environment(str(device), ranks.size))

    def begin(self) -> list[Record]:
        """Stores the tasks' assets, and records for what cannot run here, each with its reason; returns these."""
        for task in self.plan.tasks.values() if not self.validation_only else ():
            self.run.save_assets(task.name, task.data.assets)
        fresh = []
        for skipped in self.plan.skipped:
            files = self.run.trial(skipped.trial.fingerprint)
            if files.record() is None:
                record = self.measurer.skipped(skipped)
                files.save(record, None, None)
                fresh.append(record)
        return fresh

    def run_cohort(self, cohort: Cohort) -> list[Record]:
        """The cohort's teachers first (trained or taken from their folder), then its trials in lockstep."""
        teachers: dict[str, Teacher] = {}
        failures: dict[str, TeacherFailed] = {}
        for teacher in cohort.teachers:
            try:
                teachers[teacher.fingerprint] = self.teacher(teacher)
            except TeacherFailed as failure:
                failures[teacher.fingerprint] = failure
        lacking = {
            trial: failures[teacher.fingerprint]
            for trial in cohort.trials
            for teacher in Cohort((trial,)).teachers
            if teacher.fingerprint in failures
        }
        records = [self.fail(trial, failure.message) for trial, failure in lacking.items()]
        able = tuple(trial for trial in cohort.trials if trial not in lacking)
        if able:
            for part in self._parts(Cohort(able), teachers):
                records += [self._store(trained, teachers) for trained in self._train_in_parts(part, teachers)]
        return records

    def _parts(self, cohort: Cohort, teachers: Mapping[str, Teacher]) -> list[Cohort]:
        """The cohort, or the smaller ones, in the order of training, that fit the memory there is."""
        if len(cohort.trials) == 1:
            return [cohort]
        networks = {fingerprint: teacher.network for fingerprint, teacher in teachers.items()}
        task = self._task(cohort)  # first: it takes room itself
        room = self._memory.room_for(networks.values())
        if room is None:
            return [cohort]
        forecast = self._forecaster.forecast(cohort, task, networks)
        parts = forecast.parts(room)
        if len(parts) > 1:
            whole, largest = forecast.peak(cohort.trials), max(map(forecast.peak, parts))
            self.observer.note(
                f"{len(cohort.trials)} students of seed {cohort.head.seed} would take {whole / 1e9:.3g} GB together,"
                f" and there are {room / 1e9:.3g}: they are trained in {len(parts)} parts, of at most"
                f" {largest / 1e9:.3g} GB"
            )
        return [Cohort(part) for part in parts]

    def _task(self, cohort: Cohort) -> LoadedTask:
        """The cohort's task with the examples that its seed sees, on the device where they have room."""
        name = cohort.head.task
        if cohort.head.method.needs.targets == "teacher":  # they are decoded on the CPU
            return self.plan.tasks[name].seen(cohort.head.seed)
        if name not in self._resident:
            loaded = self.plan.tasks[name]
            self._resident = {}  # makes room
            moved = resident(loaded.data, self.device, self._memory.fits_data)
            self._resident = {name: replace(loaded, data=moved)}
        return self._resident[name].seen(cohort.head.seed)

    def _train_in_parts(self, cohort: Cohort, teachers: Mapping[str, Teacher]) -> Iterator[Trained]:
        """The cohort, and again, in smaller ones, what ran out of memory in so much company; each goes on from its last
        epoch, to the same end."""
        starved = []
        for trained in self._train(cohort, teachers):
            if trained.out_of_memory and len(cohort.trials) > 1:
                starved.append(trained.trial)
            else:
                yield trained
        if not starved:
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        middle = len(starved) // 2 if len(starved) == len(cohort.trials) else len(starved)
        self.observer.note(f"out of memory: {len(starved)} of {len(cohort.trials)} trials are trained in less company")
        for part in (starved[:middle], starved[middle:]):
            if part:
                yield from self._train_in_parts(Cohort(tuple(part)), teachers)

    def _train(self, cohort: Cohort, teachers: Mapping[str, Teacher]) -> Iterator[Trained]:
        networks = {fingerprint: teacher.network for fingerprint, teacher in teachers.items()}
        return train(
            cohort,
            self._task(cohort),
            self.plan.architectures,
            networks,
            lambda trial: self.files(trial).checkpoint,
            self.device,
            self.observer,
            lambda teacher: self.files(teacher).answers,
            self.ranks,
            self._streams,
            self._memory,
        )

    def files(self, trial: Trial) -> TrialFiles:
        """Students live in the run's folder; teachers (they have no reference) in the one that all runs share."""
        if trial.reference is None:
            return teacher_files(self.out, trial.fingerprint)
        return self.run.trial(trial.fingerprint)

    def fail(self, trial: Trial, reason: str, error: str | None = None) -> Record:
        """Stores the record of a trial that was not trained to its end; `error`: what else is known, in many lines."""
        return self._store(_failed(trial, reason, error), {})

    def _store(self, trained: Trained, teachers: Mapping[str, Teacher]) -> Record:
        networks = {fingerprint: teacher.network for fingerprint, teacher in teachers.items()}
        predictions = {
            fingerprint: teacher.predictions for fingerprint, teacher in teachers.items() if teacher.predictions
        }
        with span("measuring", trained.trial.method_name):
            measured = self.measurer.measure(trained, networks, predictions)
        files = self.files(trained.trial)
        kept = trained.trial.reference is None or not self.validation_only
        weights = trained.student.state_dict() if trained.student is not None and kept else None
        with span("store"):
            files.save(measured.record, weights, measured.tensors())
            files.discard_checkpoint()
        self.observer.trial_stored(trained.trial, trained.status, trained.reason)
        return measured.record

    def teacher(self, trial: Trial) -> Teacher:
        """The teacher, trained now if that was not done before, after those that it learns from itself.

        Raises:
            TeacherFailed: it did not train to its end.
            StoreError: its files cannot be written or read back.
        """
        files = teacher_files(self.out, trial.fingerprint)
        record = files.record()
        if not is_finished(record):
            own = {teacher.fingerprint: self.teacher(teacher) for teacher in trial.teachers}
            with in_turn(files.folder, f"the teacher {trial.student} (seed {trial.seed})", self.observer):
                record = files.record()  # another run's, perhaps, by now
                if not is_finished(record):
                    record = next(self._store(trained, own) for trained in self._train(Cohort((trial,)), own))
        assert record is not None
        if record.status != "done":
            raise TeacherFailed.of(trial, record)
        network = self.plan.architectures[trial.student].build(self.plan.tasks[trial.task].data.spec)
        weights, predictions = files.weights(), files.predictions()
        if weights is None or (predictions is None and not self.validation_only):
            raise StoreError(f"the teacher in {files.folder} is incomplete", hint="delete that folder and run again")
        network.load_state_dict(weights)
        return Teacher(network.to(self.device).eval(), Predictions.of(predictions) if predictions else None)


def _failed(trial: Trial, reason: str, error: str | None) -> Trained:
    return Trained(
        trial=trial,
        status="failed",
        started=time.time(),
        student=None,
        curves={},
        examples=0,
        seconds=0.0,
        teacher_seconds=0.0,
        shared_seconds=0.0,
        reason=reason,
        error=error,
    )
