"""The frozen teachers of a cohort: one pass per batch each, shared by every trial."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture
from kdbench.plan import LoadedTask, Trial
from kdbench.profiling import span
from kdbench.task import Batch, Task
from kdbench.training.ranks import ALONE, Ranks
from kdbench.training.stored_answers import StoredAnswers, stored_answers
from kdbench.training.taps import TappedNetwork


class TeacherPanel:
    """Answers a batch with every teacher's taps, by the teacher's fingerprint.

    Each teacher runs once, with the union of the taps that the trials ask of it, in eval mode and under
    `no_grad` (not `inference_mode`: the answers enter the students' losses). One that no trial watches, because it
    only lends weights or decodes targets, or is asked by the method itself, does not run: its answers are empty.
    How it runs, the speed-ups of the trials' recipe say; what is changed for them is a copy of it.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        networks: Mapping[str, nn.Module],
        architectures: Mapping[str, Architecture],
        task: Task,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        recipe = trials[0].recipe
        self._speedups = frozenset(recipe.speedups)
        self._half = recipe.precision == "bf16" or "bf16_teacher" in self._speedups
        self._wanted: dict[str, set[str]] = {}
        self._trials: dict[str, Trial] = {}
        for trial in trials:
            for teacher in trial.teachers:
                self._wanted.setdefault(teacher.fingerprint, set()).update(trial.method.needs.teacher)
                self._trials[teacher.fingerprint] = teacher
        self._shared = {teacher.fingerprint for trial in trials for teacher in trial.watched}
        self._networks = {each: networks[each].eval().requires_grad_(False) for each in self._wanted}
        self._tapped = {
            each: self._tap(self._networks[each], architectures[self._trials[each].student], sorted(taps), task)
            for each, taps in self._wanted.items()
            if taps
        }
        self._stored: dict[str, StoredAnswers] = {}
        self.seconds: dict[str, float] = dict.fromkeys(self._wanted, 0.0)
        self.passes = 0

    def _tap(self, network: nn.Module, architecture: Architecture, wanted: list[str], task: Task) -> TappedNetwork:
        taps = architecture.taps(network)
        if "channels_last" in self._speedups:
            network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return TappedNetwork(network, taps, wanted, task)

    def store_answers(
        self, loaded: LoadedTask, device: torch.device, folder: Callable[[Trial], Path], say: Callable[[str], None]
    ) -> None:
        """Has watched teachers answer from disk, where that is possible; `folder` says where a teacher's answers lie,
        and `say` is told of those that were damaged.

        Raises:
            StoreError: they cannot be written or read.
        """
        for fingerprint in sorted(self._shared):
            identity = [fingerprint, sorted(self._speedups), self._half, device.type]
            teacher = self._trials[fingerprint]
            with span("teacher", teacher.student):
                ask = partial(self._ask, fingerprint, ranks=ALONE)  # one computes them, the others find them
                found = stored_answers(ask, loaded, device, folder(teacher), identity, say)
            if found is not None:
                self._stored[fingerprint] = found

    def __call__(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """The taps of every teacher for a prepared batch of training examples; books the seconds of each."""
        answers: dict[str, dict[str, Tensor]] = {fingerprint: {} for fingerprint in self._networks}
        for fingerprint in self._tapped:
            if fingerprint not in self._shared:
                continue
            started = time.perf_counter()
            with span("teacher", self._trials[fingerprint].student):
                stored = self._stored.get(fingerprint)
                answers[fingerprint] = stored(batch) if stored else self._ask(fingerprint, batch, self._ranks)
            self.seconds[fingerprint] = time.perf_counter() - started
        return answers

    def _ask(self, fingerprint: str, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        self.passes += 1
        with torch.no_grad(), torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=self._half):
            return self._tapped[fingerprint](batch, ranks).taps

    def stored_seconds(self, trial: Trial) -> float:
        """What it took to store the answers of a trial's teachers, now or in an earlier run."""
        stored = (self._stored.get(teacher.fingerprint) for teacher in trial.watched)
        return sum(each.seconds for each in stored if each)

    def weights(self, trial: Trial) -> list[Mapping[str, Tensor]]:
        """The state dicts of a trial's teachers."""
        return [self.network(teacher).state_dict() for teacher in trial.teachers]

    def tapped(self, trial: Trial) -> list[TappedNetwork]:
        """A trial's teachers, for a method that asks them itself."""
        return [self._tapped[teacher.fingerprint] for teacher in trial.teachers if teacher.fingerprint in self._tapped]

    def network(self, teacher: Trial) -> nn.Module:
        """A teacher's trained network, in eval mode."""
        return self._networks[teacher.fingerprint]

    def close(self) -> None:
        """Leaves the teachers' networks as they were before they were tapped."""
        for tapped in self._tapped.values():
            tapped.detach_hooks()
