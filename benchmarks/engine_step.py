"""The engine's step, to be called by itself: under a changed recipe, on batches that come round again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from kdbench import Batch
from kdbench.training.learner import Learner
from kdbench.training.teachers import TeacherPanel

from .workloads import Bench


class EngineStep:
    """What the engine's loop does with a batch under a changed recipe: the teacher's pass, and every learner's step."""

    def __init__(self, ready: Bench, methods: Sequence[str], changes: Mapping[str, Any]) -> None:
        recipe = ready.trials[methods[0]].recipe.model_copy(update=changes)
        trials = [replace(ready.trials[method], recipe=recipe) for method in methods]
        self._last = "channels_last" in recipe.speedups
        self._batches, self._steps = cycle(batches_of(ready)), ready.workload.steps
        teacher = copy.deepcopy(ready.teacher)  # taps are hooks: those of other panels must not run with these
        teachers = {each.fingerprint: teacher for trial in trials for each in trial.teachers}
        self.panel = TeacherPanel(trials, teachers, ready.plan.architectures, ready.loaded.task)
        if "stored_answers" in recipe.speedups:
            with TemporaryDirectory(ignore_cleanup_errors=True) as name:  # they are mapped, and outlive their names
                self.panel.store_answers(ready.loaded, ready.device, lambda trial: Path(name, trial.fingerprint), print)
        self.learners = []
        example = self._laid_out(batches_of(ready)[0])
        seen = self.panel(example)
        for trial in trials:
            learner = Learner(trial, ready.loaded, ready.plan.architectures[trial.student], ready.device)
            learner.begin(example, seen, self.panel.weights(trial), self.panel.tapped(trial))
            self.learners.append(learner)

    def __call__(self, batch: Batch) -> None:
        """One step of every learner."""
        batch = self._laid_out(batch)
        answers = self.panel(batch)
        for learner in self.learners:
            learner.advance(batch, answers, step=0, steps=1)

    def lap(self) -> None:
        """As many steps as are long enough to time."""
        for batch in islice(self._batches, self._steps):
            self(batch)

    def _laid_out(self, batch: Batch) -> Batch:
        if not self._last or batch.inputs.ndim != 4:
            return batch
        return replace(batch, inputs=batch.inputs.contiguous(memory_format=torch.channels_last))

    def teacher_logits(self, batches: Sequence[Batch]) -> Tensor:
        """What the teacher answers, [examples, classes]."""
        asked = (next(iter(self.panel(self._laid_out(batch)).values())) for batch in batches)
        return torch.cat([answers["logits"].float() for answers in asked])

    def losses(self, batches: Sequence[Batch], passes: int) -> Tensor:
        """Every learner's mean loss in the last of `passes` over the batches, each of which trains it; [learners]."""
        for _ in range(passes):
            for batch in batches:
                self(batch)
            for learner in self.learners:
                learner.end_epoch(sum(map(len, batches)))
        return torch.tensor([learner.curves["loss"][-1] for learner in self.learners])


def batches_of(ready: Bench) -> list[Batch]:
    """The training examples in order, on the device."""
    train, size = ready.loaded.data.train, ready.trials["scratch"].recipe.batch_size
    batches = train.batches(torch.arange(len(train)).split(size))
    return [Batch(*(each.to(ready.device) for each in (b.inputs, b.targets, b.indices))) for b in batches]


def fit(ready: Bench, passes: int) -> None:
    """Trains the teacher on its few examples, so that its answers tell them apart: an untrained network's are alike."""
    teacher, batches = ready.teacher.train().requires_grad_(True), batches_of(ready)
    optimizer = torch.optim.AdamW(teacher.parameters())
    for batch in batches * passes:
        optimizer.zero_grad()
        functional.cross_entropy(teacher(batch.inputs), batch.targets).backward()
        optimizer.step()
    update_bn([batch.inputs for batch in batches], teacher)
    teacher.eval().requires_grad_(False)
