"""The training loop: every trial of a cohort advanced in lockstep over the same batches and teacher passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture
from kdbench.augmentation import parse as parse_augmentation
from kdbench.errors import StoreError, Terminated
from kdbench.plan import Cohort, LoadedTask, Trial
from kdbench.profiling import span
from kdbench.task import Batch
from kdbench.training.checkpoints import Snapshot, load_checkpoint, save_checkpoint
from kdbench.training.learner import Learner, TeacherTaps
from kdbench.training.memory import DeviceMemory
from kdbench.training.observer import Observer
from kdbench.training.prediction import relabelled
from kdbench.training.randomness import generator
from kdbench.training.ranks import ALONE, Ranks, RanksApart
from kdbench.training.streams import SideStreams
from kdbench.training.teachers import TeacherPanel
from kdbench.training.trained import Trained, ended_early


def train(
    cohort: Cohort,
    loaded: LoadedTask,
    architectures: Mapping[str, Architecture],
    teachers: Mapping[str, nn.Module],
    checkpoint: Callable[[Trial], Path],
    device: torch.device,
    observer: Observer,
    answers: Callable[[Trial], Path] | None = None,
    ranks: Ranks = ALONE,
    streams: int = 1,
    memory: DeviceMemory | None = None,
) -> Iterator[Trained]:
    """Trains all trials of `cohort`, resuming each from its checkpoint; yields each as it ends.

    `teachers`: trained networks by fingerprint; `answers`: the folder of a teacher's stored answers, by default
    beside its checkpoint. A trial that raises or diverges leaves; the others go on. Of several `ranks` only the first
    yields what is trained to its end, and writes checkpoints; the others read the same. `streams`: on so many of CUDA's
    at once, see `kdbench.training.streams`; `memory`: what there is of the device's.

    Raises:
        RanksApart: a trial failed on one of them only.
    """
    answers = answers or (lambda teacher: checkpoint(teacher).with_name("answers"))
    panel = TeacherPanel(cohort.trials, teachers, architectures, loaded.task, ranks)
    sides, memory = SideStreams(device, streams, cohort.trials), memory or DeviceMemory(device)
    try:
        loop = _Loop(cohort, loaded, architectures, panel, checkpoint, observer, answers, ranks, sides, memory)
        yield from loop.run()
    finally:
        panel.close()


class _Loop:
    def __init__(
        self,
        cohort: Cohort,
        loaded: LoadedTask,
        architectures: Mapping[str, Architecture],
        panel: TeacherPanel,
        checkpoint: Callable[[Trial], Path],
        observer: Observer,
        answers: Callable[[Trial], Path],
        ranks: Ranks,
        sides: SideStreams,
        memory: DeviceMemory,
    ) -> None:
        self.answers, self.ranks, self.sides, self.memory = answers, ranks, sides, memory
        self.cohort, self.loaded, self.architectures, self.panel = cohort, loaded, architectures, panel
        self.checkpoint, self.device, self.observer = checkpoint, memory.device, observer
        self.recipe, self.seed, self.stream = cohort.head.recipe, cohort.head.seed, cohort.head.stream
        self.augment = parse_augmentation(self.recipe.augmentation)
        self.learners: list[Learner] = []
        self.relabelling_seconds = 0.0

    def run(self) -> Iterator[Trained]:
        if self.cohort.head.method.needs.targets == "teacher":
            failed = self._attempt(self.cohort.head, self._relabel)
            if failed:
                yield from (replace(failed, trial=trial) for trial in self.cohort.trials)
                return
        if "stored_answers" in self.recipe.speedups:
            note, fits = self.observer.note, self.memory.fits_data
            self.panel.store_answers(self.loaded, self.device, self.answers, note, fits)
        example = next(self._batches(epoch=0))
        answers = self.panel(example)
        for trial in self.cohort.trials:
            failed = self._attempt(trial, self._admit, trial, example, answers)
            if failed:
                yield failed
        del example, answers  # memory of the device
        self.observer.cohort_started(self.cohort, min((each.epoch for each in self.learners), default=0))
        for epoch in range(self.recipe.epochs):
            # a trial that a kill left an epoch ahead of the others waits for them
            active = [learner for learner in self.learners if learner.epoch == epoch]
            if active:
                yield from self._epoch(epoch, active)
        self.observer.cohort_ended(self.cohort)
        self.panel.close()
        if not self.ranks.leads:
            return
        self.ranks = ALONE  # what is left, the first rank does by itself
        for learner in list(self.learners):
            yield self._attempt(learner.trial, learner.deploy) or self._trained(learner)

    def _trained(self, learner: Learner) -> Trained:
        kept = {epoch: Snapshot.of(self.checkpoint(learner.trial), epoch) for epoch in learner.trial.kept_epochs}
        return Trained(
            trial=learner.trial,
            status="done",
            started=learner.started,
            student=learner.networks[0].eval(),
            curves=learner.curves,
            examples=learner.examples,
            seconds=learner.seconds,
            teacher_seconds=learner.teacher_seconds,
            shared_seconds=learner.shared_seconds,
            snapshots={epoch: snapshot for epoch, snapshot in kept.items() if snapshot.path.exists()},
        )

    def _relabel(self) -> None:
        """Replaces the training targets by what the cohort's teacher decodes."""
        started = time.perf_counter()
        data = self.loaded.data
        teacher = self.panel.network(self.cohort.head.teachers[0])
        train = relabelled(self.cohort.head, data.train, self.loaded, teacher, self.device)
        self.loaded = replace(self.loaded, data=replace(data, train=train))
        self.relabelling_seconds = time.perf_counter() - started

    def _admit(self, trial: Trial, example: Batch, answers: TeacherTaps) -> None:
        with self.sides.parted(), self.sides.of(trial):
            learner = Learner(trial, self.loaded, self.architectures[trial.student], self.device, self.ranks)
            learner.begin(example, answers, self.panel.weights(trial), self.panel.tapped(trial))
            before = self.relabelling_seconds + self.panel.stored_seconds(trial)
            learner.seconds = learner.teacher_seconds = before
            learner.shared_seconds = before / len(self.cohort.trials)
            load_checkpoint(learner, self.checkpoint(trial), self.observer.note)
        self.learners.append(learner)

    def _epoch(self, epoch: int, active: list[Learner]) -> Iterator[Trained]:
        for learner in active:
            learner.train_mode()
        order = self._order(epoch)
        steps = self.recipe.epochs * len(order)
        examples, started = 0, time.perf_counter()
        for index, batch in enumerate(self._batches(epoch)):
            try:
                answers = self.panel(batch)
            except torch.OutOfMemoryError as error:  # of everyone's company; each may be tried in less
                yield from (self._leave(learner.trial, error) for learner in active)
                return
            self._book(active, time.perf_counter() - started)
            ended = self._advance(active, batch, answers, epoch * len(order) + index, steps)
            if ended:
                active = [learner for learner in active if learner in self.learners]
                yield from ended
            if not active:
                break
            examples += len(batch)
            started = time.perf_counter()
        for learner in list(active):
            failed = self._attempt(learner.trial, self._close, learner, examples)
            if failed:
                active.remove(learner)
                yield failed
        self.observer.epoch_ended(self.cohort, epoch + 1, {each.trial: each.curves for each in active})

    def _advance(
        self, active: list[Learner], batch: Batch, answers: TeacherTaps, step: int, steps: int
    ) -> list[Trained]:
        """A step of each, side by side where streams allow it; returns the ends of those that it cost."""
        ended = []
        with self.sides.parted():
            for learner in active:
                with self.sides.of(learner.trial):
                    failed = self._attempt(learner.trial, learner.advance, batch, answers, step, steps)
                if failed:
                    ended.append(failed)
        return ended

    def _close(self, learner: Learner, examples: int) -> None:
        with span("evaluation", learner.trial.method_name):
            learner.end_epoch(examples)
        self.ranks.check_alike(learner.replicated())
        if self.ranks.leads:
            with span("checkpoints"):
                self._save(learner)

    def _save(self, learner: Learner) -> None:
        if learner.epoch in learner.trial.kept_epochs:
            Snapshot.of(self.checkpoint(learner.trial), learner.epoch).save(learner)
        save_checkpoint(learner, self.checkpoint(learner.trial))

    def _attempt(self, trial: Trial, work: Callable[..., None], *arguments: object) -> Trained | None:
        """Runs one trial's work; if it raises, the trial leaves the cohort, and its end is returned."""
        try:
            work(*arguments)
        except StoreError:
            raise  # the disk is full or read-only: no fault of the trial's
        except (Terminated, RanksApart):
            raise
        except SystemExit as end:  # a method's, which must not end the others
            return self._leave(trial, RuntimeError(f"it called sys.exit({end.code!r})"))
        except Exception as error:
            return self._leave(trial, error)
        return None

    def _leave(self, trial: Trial, error: Exception) -> Trained:
        self.ranks.agree(error)
        learner = next((each for each in self.learners if each.trial is trial), None)
        if learner is not None:
            self.learners.remove(learner)
        return ended_early(trial, learner, error)

    def _order(self, epoch: int) -> list[Tensor]:
        """The epoch's batches as positions; a single left-over example is dropped (BatchNorm cannot take it)."""
        shuffled = torch.randperm(
            len(self.loaded.data.train), generator=generator(self.seed, self.stream, "order", epoch)
        )
        return [batch for batch in shuffled.split(self.recipe.batch_size) if len(batch) > 1]

    def _batches(self, epoch: int) -> Iterator[Batch]:
        data = self.loaded.data
        random = generator(self.seed, self.stream, "augmentation", epoch)
        order = self._order(epoch)
        batches = zip(order, data.train.batches(order), strict=True)
        while True:
            with span("data"):
                positions, batch = next(batches, (None, None))
                if batch is None:
                    return
                inputs = self.augment(batch.inputs, random).to(self.device, non_blocking=True)
                targets = batch.targets.to(self.device, non_blocking=True)
                indices = batch.indices.to(self.device, non_blocking=True)
                prepared = Batch(self._laid_out(data.prepare(inputs)), targets, indices, positions)
                if self.sides:  # what a task remembers of a batch must be there before students part
                    self.loaded.task.labels(prepared)
            yield prepared

    def _laid_out(self, inputs: Tensor) -> Tensor:
        """The prepared inputs as the recipe has them in memory."""
        last = inputs.ndim == 4 and "channels_last" in self.recipe.speedups
        return inputs.contiguous(memory_format=torch.channels_last) if last else inputs

    def _book(self, active: list[Learner], seconds: float) -> None:
        """Charges data to everyone and a teacher's pass to whoever learns from it: in full as what it would have cost
        alone, and divided among them as what it really cost."""
        passes = self.panel.seconds
        data = seconds - sum(passes.values())
        for learner in active:
            learner.seconds += data
            learner.shared_seconds += data / len(active)
        for teacher, taken in passes.items():
            users = [learner for learner in active if teacher in learner.watches]
            for learner in users:
                learner.teacher_seconds += taken
                learner.seconds += taken
                learner.shared_seconds += taken / len(users)
