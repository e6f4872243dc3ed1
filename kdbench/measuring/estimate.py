"""What a plan would cost, from counted FLOPs and a few real steps of each network."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.benchmark.utils.timer import timer  # reads the clock once the accelerator is idle

from kdbench.measuring.cost import deployed_cost
from kdbench.measuring.deployed import example_inputs
from kdbench.plan import Plan, Trial
from kdbench.task import DataSpec
from kdbench.training.randomness import seeded

TIMED_STEPS = 3


def step_seconds(
    network: nn.Module, spec: DataSpec, batch_size: int, device: str | torch.device, backward: bool
) -> float:
    """Median seconds of one step on `batch_size` made-up examples, after a warm-up step.

    A step is a teacher's forward pass (eval mode, no gradients) or, with `backward`, a student's training step:
    forward, a loss of all logits, backward and SGD with momentum. It runs on a copy, under a seed of its own.
    """
    private = copy.deepcopy(network).to(device).train(backward)
    inputs = example_inputs(spec, batch_size, device)
    momenta = [torch.zeros_like(parameter) for parameter in private.parameters()]

    def step() -> None:
        output = private(inputs)
        if backward:
            output.logsumexp(dim=1).mean().backward()
            _descend(private, momenta)

    with seeded(0, "estimate"), torch.set_grad_enabled(backward):
        step()
        return statistics.median(_timed(step) for _ in range(TIMED_STEPS))


@torch.no_grad()
def _descend(network: nn.Module, momenta: Sequence[Tensor]) -> None:
    """SGD by hand: torch's optimisers import its compiler first, which takes longer than a plan may."""
    for parameter, momentum in zip(network.parameters(), momenta, strict=True):
        if parameter.grad is not None:
            momentum.mul_(0.9).add_(parameter.grad)
            parameter.sub_(momentum, alpha=1e-3)
            parameter.grad = None


def _timed(step: Callable[[], None]) -> float:
    start = timer()
    step()
    return timer() - start


@dataclass(frozen=True)
class Estimate:
    """What is left of a plan: networks, FLOPs and seconds of training teachers and students, and of the teachers'
    passes, one per batch and cohort."""

    teachers: int
    teacher_flops: float
    teacher_seconds: float
    students: int
    student_flops: float
    student_seconds: float
    pass_flops: float
    pass_seconds: float

    @property
    def seconds(self) -> float:
        """All of it, one after the other on one device."""
        return self.teacher_seconds + self.student_seconds + self.pass_seconds


def estimate(plan: Plan, students: Collection[Trial], teachers: Collection[Trial], device: torch.device) -> Estimate:
    """The cost of training `students` and `teachers` of `plan`: every network timed once on `device`.

    A training step is charged three forward passes of FLOPs (forward, and backward at twice that). Losses, auxiliary
    modules, decoding, measuring and storing are left out.
    """
    costs = _Costs(plan, device)
    passes = [
        (teacher, 1 if "stored_answers" in cohort.head.recipe.speedups else cohort.head.recipe.epochs)
        for cohort in plan.cohorts
        if any(trial in students for trial in cohort.trials)
        for teacher in {
            t.fingerprint: t for trial in cohort.trials if trial in students for t in trial.watched
        }.values()
    ]
    return Estimate(
        teachers=len(teachers),
        teacher_flops=sum(costs.flops(trial, trial.recipe.epochs, passes=3) for trial in teachers),
        teacher_seconds=sum(costs.seconds(trial, trial.recipe.epochs, backward=True) for trial in teachers),
        students=len(students),
        student_flops=sum(
            trial.method.needs.students * costs.flops(trial, trial.recipe.epochs, passes=3) for trial in students
        ),
        student_seconds=sum(
            trial.method.needs.students * costs.seconds(trial, trial.recipe.epochs, backward=True) for trial in students
        ),
        pass_flops=sum(costs.flops(teacher, epochs, passes=1) for teacher, epochs in passes),
        pass_seconds=sum(costs.seconds(teacher, epochs, backward=False) for teacher, epochs in passes),
    )


class _Costs:
    """Counts and times each network once per task."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self._flops: dict[tuple[str, str], float] = {}
        self._seconds: dict[tuple[str, str, int, bool], float] = {}

    def _network(self, trial: Trial) -> nn.Module:
        with seeded(0, "estimate"):
            return self.plan.architectures[trial.student].build(self.plan.tasks[trial.task].data.spec)

    def flops(self, trial: Trial, epochs: int, passes: int) -> float:
        """FLOPs of `epochs` epochs at `passes` forward passes' worth a step."""
        key, data = (trial.task, trial.student), self.plan.tasks[trial.task].data
        if key not in self._flops:
            self._flops[key] = deployed_cost(self._network(trial), data.spec)["flops"]
        return self._flops[key] * passes * epochs * len(data.train)

    def seconds(self, trial: Trial, epochs: int, backward: bool) -> float:
        """Seconds of `epochs` epochs of training steps, or of forward passes."""
        size, data = trial.recipe.batch_size, self.plan.tasks[trial.task].data
        key = (trial.task, trial.student, size, backward)
        if key not in self._seconds:
            self._seconds[key] = step_seconds(self._network(trial), data.spec, size, self.device, backward)
        return self._seconds[key] * epochs * len(data.train) / size
