"""Checks of how a method behaves among others: it leaves no trace, looks nothing up, and knows nobody by name."""

from __future__ import annotations

import dataclasses
from unittest import SkipTest

import torch
from torch import Tensor

from kdbench.errors import BadInput
from kdbench.hyperparameters import Choices, construct
from kdbench.method import Method, Step
from kdbench.testing import state
from kdbench.testing.check import Check, check
from kdbench.testing.life import Guise, guises, live
from kdbench.testing.situations import ORDINARY, backward
from kdbench.testing.state import Shared, restored, seeded
from kdbench.testing.watch import watched

_STEPS = 3
_RATE = 0.01
_LATE = (1.0,)  # once for every name that is installed, so not for every progress


@check
def no_data_access(method: Method) -> None:
    """A method that can read files can read the test split: it gets what it needs in a Step."""
    ORDINARY.step(method)  # skipped where it cannot be built
    with restored(), watched() as seen:
        live(method)
    assert not seen, f"it {seen[0]}"


@check
def random_state(method: Method) -> None:
    """Only torch's generator is kept apart for each trial: draw from it, and never seed it."""
    _leaves_alone(method, state.PYTHON_RANDOM)
    _leaves_alone(method, state.NUMPY_RANDOM)
    first, second = (_generator_after(method, seed) for seed in (0, 1))
    assert not first.equal(second), "losses must not seed torch's generator: it may draw from it"


def _generator_after(method: Method, seed: int) -> Tensor:
    step = ORDINARY.step(method)
    with seeded(seed):
        ORDINARY.losses(method, step)
        return torch.get_rng_state()


def _leaves_alone(method: Method, shared: Shared) -> None:
    ORDINARY.step(method)  # skipped where it cannot be built
    with restored():
        before = shared.read()
        live(method)
        assert shared.read() == before, f"{shared.name} must not be changed"


def _shared_check(shared: Shared, name: str, reason: str) -> Check:
    return Check(name, reason, lambda method: _leaves_alone(method, shared))


@check
def alone_equals_together(method: Method) -> None:
    """Trials share a process: what one keeps in a class or a module, the next one finds there."""
    alone = _journey([method])
    if not _equal(alone, _journey([method])):
        raise SkipTest("its losses do not repeat even alone")
    for company in ([method], [_otherwise(method), method]):
        together = _journey([method, *company])
        assert _equal(alone, together), "its losses change when others of its kind are trained at the same time"


@check
def no_special_cases(method: Method) -> None:
    """A method that knows the names of tasks and networks can be right on those that it was published with alone."""
    ORDINARY.step(method)  # skipped where it cannot be built
    plain, again = (_late_life(method, Guise()) for _ in range(2))
    if not _equal([plain], [again]):
        raise SkipTest("its losses do not repeat")
    for guise in guises():
        named = _late_life(method, guise)
        different = [what for what in plain if what not in named or not plain[what].equal(named[what])]
        assert not different, (
            f"{different[0]} is another for the task '{guise.task.name}' and the architecture "
            f"'{guise.architecture.name}' than where names are withheld"
        )


def _late_life(method: Method, guise: Guise) -> dict[str, Tensor]:
    with restored():
        return live(method, guise, at=_LATE)


CHECKS = (
    no_data_access,  # first: what it has read once it may remember
    random_state,
    _shared_check(state.DEFAULT_DTYPE, "default_dtype", "Another default dtype changes every network built after it."),
    _shared_check(state.THREADS, "thread_count", "Threads are the run's: they set its speed and the order of sums."),
    _shared_check(state.GRAD_MODE, "grad_mode", "Without gradients the trials that come after learn nothing."),
    _shared_check(state.DETERMINISM, "deterministic_mode", "Whether a run repeats bit for bit is the run's to say."),
    alone_equals_together,
    no_special_cases,
)


def _journey(methods: list[Method]) -> list[dict[str, Tensor]]:
    """The losses of the first method over some steps, in each of which the others come before it.

    Every trial has its own batches, auxiliary modules, which are trained, and random stream, as the engine sees to.
    """
    steps = [_steps(method, seed=100 * trial) for trial, method in enumerate(methods)]
    journey: list[dict[str, Tensor]] = []
    for at in range(_STEPS):
        for trial, method in reversed(list(enumerate(methods))):
            with seeded(100 * trial + at):
                losses = ORDINARY.losses(method, steps[trial][at])
            backward(losses)
            _descend(steps[trial][at])
        journey.append({term: torch.as_tensor(loss).detach() for term, loss in losses.items()})
    return journey


def _steps(method: Method, seed: int) -> list[Step]:
    first, *later = (ORDINARY.step(method, at / (_STEPS - 1), seed=seed + at) for at in range(_STEPS))
    return [first, *(dataclasses.replace(step, auxiliary=first.auxiliary) for step in later)]


@torch.no_grad()
def _descend(step: Step) -> None:
    for parameter in step.auxiliary.parameters() if step.auxiliary is not None else ():
        if parameter.grad is not None:
            parameter.sub_(parameter.grad, alpha=_RATE)
            parameter.grad = None


def _equal(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> bool:
    return all(
        one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
        for one, other in zip(first, second, strict=True)
    )


def _otherwise(method: Method) -> Method:
    """The method with other hyper-parameters, where it has any to choose."""
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}
    spaces = {name: space for name, space in method.search_space.items() if name in fields}
    ends = {name: space[-1] if isinstance(space, Choices) else space.high for name, space in spaces.items()}
    try:
        return construct(type(method), {**fields, **ends}, where=type(method).__name__)
    except BadInput:  # another check's
        return method
