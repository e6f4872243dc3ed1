"""How much memory a cohort will take, told before it is trained, and the parts in which it fits.

A few steps on two small batches show which tensors live when, and by which power of the batch each of them grows. So
the course of a step is known at the recipe's batch size without its memory being taken. (FakeTensorMode would take
none either; it was not tried, because shapes depend on data at the mask of valid positions of sequence tasks.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn

from kdbench.architecture import Architecture
from kdbench.errors import NotApplicable, Terminated
from kdbench.plan import Cohort, LoadedTask, Trial
from kdbench.profiling import span
from kdbench.task import Batch, Split
from kdbench.training import prediction
from kdbench.training.allocations import Course, traced
from kdbench.training.learner import Learner, TeacherTaps
from kdbench.training.randomness import forked
from kdbench.training.ranks import Ranks
from kdbench.training.stored_answers import BUDGET
from kdbench.training.teachers import TeacherPanel

_TRIED = 32  # examples in the larger of the two batches that are tried, unless the recipe has fewer
_COUNTED_ON = 0.8  # of a CUDA device's free memory
_STEPS = 3  # at the beginning, the middle and the end of training: losses may change with its progress


@dataclass(frozen=True)
class DeviceMemory:
    """What a process may hold on a device. `limit`: GB for a cohort, if somebody set it; `sharers`: how many processes
    of this run compute there."""

    device: torch.device
    limit: float | None = None
    sharers: int = 1

    def room_for(self, teachers: Iterable[nn.Module]) -> float | None:
        """The bytes that a cohort may take with these teachers, which are on the device already; None: no matter how
        many. CUDA's allocator leaves gaps, and kernels want room to work, so that not all that is free is counted on.
        """
        if self.limit is not None:
            return 1e9 * self.limit
        free = self._free()
        return None if free is None else _COUNTED_ON * free + sum(map(weights_bytes, teachers))

    def fits_data(self, size: int) -> bool:
        """Whether so many bytes of examples may stay on the device."""
        free = self._free()
        return free is not None and size <= free / 4

    def _free(self) -> int | None:
        """The bytes that nobody uses, or that this process has freed; at most what it lacks to an even share of the
        device, which others may not have taken yet. None where nobody tells."""
        if self.device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(self.device)
        held = torch.cuda.memory_allocated(self.device)
        return min(free + torch.cuda.memory_reserved(self.device) - held, max(0, total // self.sharers - held))


@dataclass(frozen=True)
class Footprint:
    """Of one trial: the bytes that it keeps between steps, and the most that a step adds to them."""

    kept: int
    step: int


@dataclass(frozen=True)
class CohortMemory:
    """What a cohort takes, in bytes: a forecast.

    Attributes:
        teachers: their weights.
        before: the most that teachers take to store their answers, before there are students.
        shared: batches and the teachers' answers to them, and all stored ones where these stay there.
        passing: the most that a teacher's pass, or a validation, takes for its time.
        trials: of each trial.
        streams: on how many the trials are advanced. One of several keeps what it has freed to itself.
    """

    teachers: int
    before: int
    shared: int
    passing: int
    trials: Mapping[Trial, Footprint]
    streams: int = 1

    def peak(self, trials: Iterable[Trial]) -> int:
        """Of these in lockstep: all keep what they need, and one at a time takes a step, or one on each stream."""
        own = [self.trials[trial] for trial in trials]
        steps = sum(sorted((each.step for each in own), reverse=True)[: self.streams])
        moving = max(self.passing, steps) if min(self.streams, len(own)) == 1 else self.passing + steps
        return self.teachers + max(self.before, self.shared + sum(each.kept for each in own) + moving)

    def parts(self, room: float) -> list[tuple[Trial, ...]]:
        """The trials in a few parts, each with its peak within `room` bytes or of one trial, which is tried anyhow: by
        first fit, the largest first."""
        order = {trial: place for place, trial in enumerate(self.trials)}
        parts: list[list[Trial]] = []
        for trial in sorted(order, key=lambda trial: (-self.peak([trial]), order[trial])):
            fitting = next((part for part in parts if self.peak([*part, trial]) <= room), None)
            if fitting is None:
                parts.append([trial])
            else:
                fitting.append(trial)
        return sorted((tuple(sorted(part, key=order.__getitem__)) for part in parts), key=lambda part: order[part[0]])


@dataclass(frozen=True)
class _Occasion:
    """A batch of a size that is tried, and the teachers that answered it; the course of memory until then."""

    panel: TeacherPanel
    batch: Batch
    answers: TeacherTaps
    held: object
    course: Course


class _Deserted(Ranks):
    """One of several ranks, without a word from the others: its figures are worth nothing, its memory is the same."""

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def highest(self, tensor: Tensor) -> Tensor:
        return tensor.clone()


class Forecaster:
    """Tells what cohorts will take. What it learnt of a method serves for other seeds."""

    def __init__(
        self,
        architectures: Mapping[str, Architecture],
        memory: DeviceMemory,
        say: Callable[[str], None],
        ranks: int = 1,
        streams: int = 1,
    ) -> None:
        """`say` is told of methods that fail already here; what is told is of one of so many `ranks`, on CUDA with so
        many `streams`."""
        self._architectures, self._memory, self._device, self._say = architectures, memory, memory.device, say
        self._ranks, self._streams = _Deserted(size=ranks), streams if memory.device.type == "cuda" else 1
        self._known: dict[tuple[str, ...], Footprint] = {}

    def forecast(self, cohort: Cohort, loaded: LoadedTask, teachers: Mapping[str, nn.Module]) -> CohortMemory:
        """Of a cohort with these trained teachers by fingerprint, on the device already. Changes no generator."""
        size = cohort.head.recipe.batch_size
        with forked(), span("memory forecast"):
            tried = _tried(size, self._ranks.size)
            occasions = {each: self._occasion(cohort, loaded, teachers, each) for each in tried}
            try:
                trials = {trial: self._footprint(trial, loaded, occasions) for trial in cohort.trials}
                networks = {trial.student for trial in cohort.trials}
                validating = max(self._validation(student, loaded) for student in networks)
            finally:
                for occasion in occasions.values():
                    occasion.panel.close()
        together = _at(size, {each: occasion.course for each, occasion in occasions.items()})
        passing = max(together.peak - together.left, validating)
        before, shared = 0, together.left
        if "stored_answers" in cohort.head.recipe.speedups:
            before = self._storing(cohort, loaded, teachers)
            shared += self._stored(occasions[max(tried)], len(loaded.data.train))
        weights = sum(map(weights_bytes, teachers.values()))
        return CohortMemory(weights, before, shared, passing, trials, self._streams)

    def _occasion(self, cohort: Cohort, loaded: LoadedTask, teachers: Mapping[str, nn.Module], size: int) -> _Occasion:
        """As training goes: it keeps a batch until the teachers have answered the next."""
        order = [_spread(loaded.data.train, size)] * 2
        with traced(self._device) as seen:
            panel = TeacherPanel(cohort.trials, teachers, self._architectures, loaded.task, self._ranks)
            batches = prediction.prepared(loaded.data.train, order, loaded.data, self._device)
            for _ in order:
                batch = next(batches)
                answers = panel(batch)
            course = seen.course()
        return _Occasion(panel, batch, answers, batches, course)

    def _storing(self, cohort: Cohort, loaded: LoadedTask, teachers: Mapping[str, nn.Module]) -> int:
        """The most that teachers take to store their answers, which one rank computes for all."""
        train, courses = loaded.data.train, {}
        size = min(prediction.EVALUATION_BATCH, len(train))
        for tried in _tried(size):
            with traced(self._device) as seen:
                panel = TeacherPanel(cohort.trials, teachers, self._architectures, loaded.task)
                (batch,) = prediction.prepared(train, [_spread(train, tried)], loaded.data, self._device)
                panel(batch)
                courses[tried] = seen.course()
            panel.close()
        return _at(size, courses).peak

    def _stored(self, occasion: _Occasion, examples: int) -> int:
        """The bytes of all stored answers that will stay on the device."""
        held = 0
        for _, taps in sorted(occasion.answers.items()):
            if {len(tensor) for tensor in taps.values()} == {len(occasion.batch)}:
                size = 4 * examples * sum(prod(tensor.shape[1:]) for tensor in taps.values())
                # what was moved there before has left less room
                held += size if size <= BUDGET and self._memory.fits_data(size + held // 4) else 0
        return held

    def _footprint(self, trial: Trial, loaded: LoadedTask, occasions: Mapping[int, _Occasion]) -> Footprint:
        recipe = trial.recipe.model_dump_json(exclude={"learning_rate"})
        like = (loaded.name, trial.pair, trial.student, repr(trial.method), recipe)
        if like not in self._known:
            try:
                steps = {size: self._steps(trial, loaded, size, occasion) for size, occasion in occasions.items()}
            except Terminated:
                raise
            except (Exception, SystemExit) as error:  # it will end in training as it does here, or be alone to blame
                if not isinstance(error, NotApplicable):
                    self._say(f"cannot tell the memory of {trial.method_name}: {type(error).__name__}: {error}")
                return Footprint(0, 0)
            course = _at(trial.recipe.batch_size, steps)
            self._known[like] = Footprint(course.left, course.peak - course.left)
        return self._known[like]

    def _steps(self, trial: Trial, loaded: LoadedTask, size: int, occasion: _Occasion) -> Course:
        """Of a learner from its beginning until after a few steps, at which it still lives."""
        small, panel = replace(trial, recipe=trial.recipe.model_copy(update={"batch_size": size})), occasion.panel
        with traced(self._device) as seen:
            learner = Learner(small, loaded, self._architectures[trial.student], self._device, self._ranks)
            learner.begin(occasion.batch, occasion.answers, panel.weights(trial), panel.tapped(trial))
            for step in range(_STEPS if trial.recipe.epochs else 0):
                learner.advance(occasion.batch, occasion.answers, step, _STEPS)
            return seen.course()

    def _validation(self, student: str, loaded: LoadedTask) -> int:
        """What validating a student adds to it, bytes."""
        split = loaded.data.validation
        assert split is not None
        network = self._architectures[student].build(loaded.data.spec).to(self._device)
        courses, size = {}, min(prediction.evaluation_batch(loaded.data.spec), len(split))
        batches = 2 if len(split) > size else 1  # while the second is answered, the first is still held
        for tried in _tried(size):
            examples = split.subset(_spread(split, batches * tried))
            with traced(self._device) as seen:
                prediction.answers(network, examples, loaded, self._device, tried)
                courses[tried] = seen.course()
        return _at(size, courses).peak


def weights_bytes(network: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(tensor.nbytes for tensor in {*network.parameters(), *network.buffers()})


def _tried(size: int, ranks: int = 1) -> set[int]:
    """The sizes from which that one is known, the larger twice the smaller, if the recipe's is not less; each rank has
    as many examples of them as any other, two at least, because BatchNorm cannot take one."""
    smaller = ranks * max(2, _TRIED // 2 // ranks)
    larger = min(size, 2 * smaller)
    return {min(larger, max(2 * ranks, larger // 2)), larger}


def _at(size: int, courses: Mapping[int, Course]) -> Course:
    """The course at a size that was tried, or is beyond those."""
    smaller, larger = min(courses), max(courses)
    if size == larger or smaller == larger:
        return courses[larger]
    return courses[larger].grown(courses[smaller], larger / smaller, size / larger)


def _spread(split: Split, size: int) -> Tensor:
    """Positions from all over a split, the last one too, up to which memory banks reach."""
    return torch.linspace(0, len(split) - 1, size).long()
