"""The circumstances that a run may bring, and what a method answers in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from kdbench.errors import NotApplicable
from kdbench.method import Method, Step
from kdbench.testing.check import named
from kdbench.testing.example import check_taps, example_step
from kdbench.testing.loops import asked
from kdbench.testing.state import restored

PROGRESS = (0.0, 0.5, 1.0)
_MAP, _SEQUENCE = (4, 4), (6,)


@dataclass(frozen=True)
class Situation:
    """One kind of batch.

    Attributes:
        name: how messages call it.
        settings: those of `example_step`.
        positions: of these the first that the method does not refuse (a method for texts may refuse maps).
        built_on: the examples of the batch that auxiliary modules are built to, which is the first of a run.
        autocast: answers are bfloat16 and parameters are not.
        refusable: a method may say that it has no meaning here, as `NotApplicable`.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    positions: tuple[tuple[int, ...], ...] = (_MAP, _SEQUENCE)
    built_on: int | None = None
    autocast: bool = False
    refusable: bool = False

    def step(self, method: Method, progress: float = 1.0, **settings: Any) -> Step:
        """A step of the situation; keyword arguments replace its settings.

        Raises:
            AssertionError: the method refuses it, and must not.
            unittest.SkipTest: the method refuses it, and may; or it asks for taps that no network has.
        """
        try:
            check_taps(method.needs)
        except AssertionError as error:
            raise SkipTest(str(error)) from error
        reason = ""
        for positions in self.positions:
            try:
                return self._step(method, progress, {**self.settings, "positions": positions, **settings})
            except NotApplicable as refusal:
                reason = refusal.message
        if self.refusable:
            raise SkipTest(reason)
        raise AssertionError(f"it refuses {self.name}: {reason}")

    def _step(self, method: Method, progress: float, settings: Mapping[str, Any]) -> Step:
        step = replace(example_step(method, **settings), progress=progress)
        if self.built_on is not None:
            step = replace(step, auxiliary=example_step(method, **{**settings, "batch": self.built_on}).auxiliary)
        if self.autocast and step.auxiliary is not None:
            step.auxiliary.float()
        return step

    def losses(self, method: Method, step: Step) -> dict[str, Tensor]:
        """The terms of a step, and shared state put back."""
        with restored(), self._precision():
            return asked(method).losses(step)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext()


WIDE = {"dtype": torch.float64}
ORDINARY = Situation("an ordinary batch", WIDE)
MAPS = Situation("two position axes", WIDE, positions=(_MAP,), refusable=True)
SEQUENCES = Situation("one position axis", WIDE, positions=(_SEQUENCE,), refusable=True)


def works(method: Method, situation: Situation) -> None:
    """Asserts that losses and their gradients can be computed there, and are finite."""
    for progress in PROGRESS:
        with named(f"{situation.name}, progress {progress:g}"):
            step = situation.step(method, progress)
            terms = situation.losses(method, step)
            assert_finite(terms)
            backward(terms)
            assert_finite_gradients(step)


def assert_finite(terms: Mapping[str, Tensor]) -> None:
    for term, loss in terms.items():
        value = torch.as_tensor(loss)
        assert value.isfinite().all(), f"the term '{term}' must be finite, and is {value.flatten()[0].item()}"


def assert_finite_gradients(step: Step) -> None:
    for origin, leaf in trained(step).items():
        assert leaf.grad is None or leaf.grad.isfinite().all(), f"the gradient of {origin} must be finite"


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of the terms, whatever their shapes: those are another check's."""
    return torch.stack([torch.as_tensor(loss).double().sum() for loss in terms.values()] or [torch.zeros(())]).sum()


def backward(terms: Mapping[str, Tensor]) -> None:
    if (loss := total(terms)).requires_grad:
        loss.backward()


def without_task(step: Step) -> Step:
    """The step with a task that is always solved, so that only what the method adds is left."""
    return replace(step, task_loss=lambda logits: 0 * logits.sum())


def trained(step: Step) -> dict[str, Tensor]:
    """What a step trains, by the name that messages give it."""
    taps = {f"student {i} {tap}": leaf for i, student in enumerate(step.students) for tap, leaf in student.items()}
    if step.auxiliary is None:
        return taps
    parameters = {f"auxiliary {name}": leaf for name, leaf in step.auxiliary.named_parameters() if leaf.requires_grad}
    return {**taps, **parameters}


def leaves(loss: Tensor) -> Iterator[Tensor]:
    """The leaves of the graph behind a loss: all that its gradient would reach."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [following for following, _ in node.next_functions]
