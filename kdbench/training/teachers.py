"""The frozen teachers of a cohort: one pass per batch each, shared by every trial."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture
from kdbench.errors import BadInput
from kdbench.plan import LoadedTask, Trial
from kdbench.profiling import span
from kdbench.task import Batch, Task
from kdbench.training.compiled import CompiledForward, Compiling, require_compiler
from kdbench.training.ranks import ALONE, Ranks
from kdbench.training.stored_answers import StoredAnswers, stored_answers
from kdbench.training.taps import TappedNetwork, always_compiled


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
        if "compiled" in self._speedups:
            require_compiler(ranks.size, networks.values())
        self._half = recipe.precision == "bf16" or "bf16_teacher" in self._speedups
        self._wanted: dict[str, set[str]] = {}
        self._trials: dict[str, Trial] = {}
        for trial in trials:
            for teacher in trial.teachers:
                self._wanted.setdefault(teacher.fingerprint, set()).update(trial.method.needs.teacher)
                self._trials[teacher.fingerprint] = teacher
        self._shared = {teacher.fingerprint for trial in trials for teacher in trial.watched}
        self._networks = {each: networks[each].eval().requires_grad_(False) for each in self._wanted}
        tap = partial(self._tap, architectures=architectures, task=task)
        # copies, made before there are hooks: what is hooked for some trials must not be part of the code for all
        compiled = self._shared if "compiled" in self._speedups else ()
        self._compiled = {
            each: tap(each, filter(always_compiled, self._wanted[each]), compiled=True) for each in compiled
        }
        self._tapped = {each: tap(each, wanted) for each, wanted in self._wanted.items() if wanted}
        self._refused: dict[str, BadInput] = {}
        self._stores = "stored_answers" in self._speedups
        self._stored: dict[str, StoredAnswers] = {}
        self.seconds: dict[str, float] = dict.fromkeys(self._wanted, 0.0)
        self.passes = 0

    def _tap(
        self,
        fingerprint: str,
        wanted: Iterable[str],
        architectures: Mapping[str, Architecture],
        task: Task,
        compiled: bool = False,
    ) -> TappedNetwork:
        network = self._networks[fingerprint]
        name = self._trials[fingerprint].student
        taps = architectures[name].taps(network)
        if compiled or "channels_last" in self._speedups:
            network = copy.deepcopy(network)
        if "channels_last" in self._speedups:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = CompiledForward(network, name, training=False) if compiled else None
        return TappedNetwork(network, taps, sorted(wanted), task, forward)

    def store_answers(
        self,
        loaded: LoadedTask,
        device: torch.device,
        folder: Callable[[Trial], Path],
        say: Callable[[str], None],
        fits: Callable[[int], bool] = lambda size: False,
    ) -> None:
        """Has watched teachers answer from disk, where that is possible, or from the device, where `fits` says that
        there is room for so many bytes; `folder` says where a teacher's answers lie, and `say` is told of those that
        were damaged.

        Raises:
            StoreError: they cannot be written or read.
        """
        for fingerprint in sorted(self._shared):
            identity = [fingerprint, sorted(self._speedups), self._half, device.type]
            teacher = self._trials[fingerprint]
            with span("teacher", teacher.student):
                # one computes them, the others find them
                ask = partial(self._ask, self._tapped[fingerprint], ranks=ALONE)
                found = stored_answers(ask, loaded, device, folder(teacher), identity, say)
            if found is not None:
                self._stored[fingerprint] = found.held_on(device, fits)
        self._stores = False

    def __call__(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """The taps of every teacher for a prepared batch of training examples; books the seconds of each.

        Raises:
            BadInput: one would have to be compiled once more.
        """
        answers: dict[str, dict[str, Tensor]] = {fingerprint: {} for fingerprint in self._networks}
        for fingerprint in self._tapped:
            if fingerprint not in self._shared or fingerprint in self._refused:
                continue
            started = time.perf_counter()
            with span("teacher", self._trials[fingerprint].student):
                stored = self._stored.get(fingerprint)
                answers[fingerprint] = stored(batch) if stored else self._answer(fingerprint, batch)
            self.seconds[fingerprint] = time.perf_counter() - started
        return answers

    def _answer(self, fingerprint: str, batch: Batch) -> dict[str, Tensor]:
        """A teacher's taps. Those that are no part of its compiled code come of a pass without it."""
        compiled = self._compiled.get(fingerprint)
        if compiled is None or self._stores or not self._is_laid_out(batch):  # stored, or asked to be measured
            return self._ask(self._tapped[fingerprint], batch, self._ranks)
        try:
            found = self._ask(compiled, batch, self._ranks)
        except BadInput as error:
            if compiled.compiling.alone:
                raise
            self._refused[fingerprint] = error  # to those who learn from it; the others go on
            return {}
        others = any(name != "logits" and not always_compiled(name) for name in self._wanted[fingerprint])
        return {**(self._ask(self._tapped[fingerprint], batch, self._ranks) if others else {}), **found}

    def _is_laid_out(self, batch: Batch) -> bool:
        """Whether a batch lies in memory as those do that students are trained on."""
        last = batch.inputs.ndim == 4 and "channels_last" in self._speedups
        return not last or batch.inputs.is_contiguous(memory_format=torch.channels_last)

    def _ask(self, tapped: TappedNetwork, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        self.passes += 1
        half = torch.autocast(batch.inputs.device.type, torch.bfloat16) if self._half else nullcontext()
        with torch.no_grad(), half:
            return tapped(batch, ranks).taps

    def stored_seconds(self, trial: Trial) -> float:
        """What it took to store the answers of a trial's teachers, or to compile their passes, now or in an earlier
        run."""
        watched = [teacher.fingerprint for teacher in trial.watched]
        compiling = sum((self._compiled[each].compiling for each in watched if each in self._compiled), Compiling())
        return compiling.seconds + sum(self._stored[each].seconds for each in watched if each in self._stored)

    def weights(self, trial: Trial) -> list[Mapping[str, Tensor]]:
        """The state dicts of a trial's teachers."""
        return [self.network(teacher).state_dict() for teacher in trial.teachers]

    def tapped(self, trial: Trial) -> list[TappedNetwork]:
        """A trial's teachers, for a method that asks them itself.

        Raises:
            BadInput: one that the trial watches cannot be compiled.
        """
        for teacher in trial.watched:
            if refused := self._refused.get(teacher.fingerprint):
                raise BadInput(refused.message, hint=refused.hint) from refused
        return [self._tapped[teacher.fingerprint] for teacher in trial.teachers if teacher.fingerprint in self._tapped]

    def network(self, teacher: Trial) -> nn.Module:
        """A teacher's trained network, in eval mode."""
        return self._networks[teacher.fingerprint]

    def close(self) -> None:
        """Leaves the teachers' networks as they were before they were tapped."""
        for tapped in (*self._tapped.values(), *self._compiled.values()):
            tapped.detach_hooks()
