"""The frozen teachers of a cohort: one pass per batch each, shared by every trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture
from kdbench.plan import Trial
from kdbench.profiling import span
from kdbench.task import Batch, Task
from kdbench.training.taps import TappedNetwork


class TeacherPanel:
    """Answers a batch with every teacher's taps, by the teacher's fingerprint.

    Each teacher runs once, with the union of the taps that the trials ask of it, in eval mode and under
    `no_grad` (not `inference_mode`: the answers enter the students' losses). One that no trial watches, because it
    only lends weights or decodes targets, or is asked by the method itself, does not run: its answers are empty.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        networks: Mapping[str, nn.Module],
        architectures: Mapping[str, Architecture],
        task: Task,
    ) -> None:
        wanted: dict[str, set[str]] = {}
        self._names: dict[str, str] = {}
        for trial in trials:
            for teacher in trial.teachers:
                wanted.setdefault(teacher.fingerprint, set()).update(trial.method.needs.teacher)
                self._names[teacher.fingerprint] = teacher.student
        self._networks = {each: networks[each].eval().requires_grad_(False) for each in wanted}
        self._shared = {teacher.fingerprint for trial in trials for teacher in trial.watched}
        self._tapped: dict[str, TappedNetwork] = {}
        for fingerprint, taps in wanted.items():
            if taps:
                network = self._networks[fingerprint]
                offered = architectures[self._names[fingerprint]].taps(network)
                self._tapped[fingerprint] = TappedNetwork(network, offered, sorted(taps), task)
        self.seconds: dict[str, float] = dict.fromkeys(wanted, 0.0)
        self.passes = 0

    def __call__(self, batch: Batch, precision: str = "fp32") -> dict[str, dict[str, Tensor]]:
        """The taps of every teacher for a prepared batch; books the seconds of each pass."""
        answers: dict[str, dict[str, Tensor]] = {fingerprint: {} for fingerprint in self._networks}
        for fingerprint, tapped in self._tapped.items():
            if fingerprint not in self._shared:
                continue
            started = time.perf_counter()
            half = torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=precision == "bf16")
            with span("teacher", self._names[fingerprint]), torch.no_grad(), half:
                answers[fingerprint] = tapped(batch).taps
            self.seconds[fingerprint] = time.perf_counter() - started
            self.passes += 1
        return answers

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
