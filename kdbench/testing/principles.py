"""Checks of what a family of methods promises about its loss, whatever the paper."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from unittest import SkipTest

import torch
from torch import Tensor

from kdbench.errors import BadInput
from kdbench.hyperparameters import construct
from kdbench.method import Method, Step
from kdbench.testing.check import check
from kdbench.testing.situations import ORDINARY, total, trained, without_task

_SOFTENING = ("response", "self", "online", "ensemble")
_HOT, _HOTTER = 50.0, 100.0
_LEAST, _MOST = 0.7, 1.4  # a forgotten T^2 gives 1/4, a forgotten T 1/2, one too many 2
_IMITATING = ("response", "relation")
_NOISE = 0.3
_NEGLIGIBLE = 1e-6


@check
def temperature_scaling(method: Method) -> None:
    """Softened answers have gradients that shrink by T^2: multiplied by it, a weight means the same at any T."""
    names = {field.name for field in dataclasses.fields(method)}
    if method.family not in _SOFTENING or "temperature" not in names:
        raise SkipTest("it softens no answers by a temperature")
    hot, hotter = (_pulls(_at_temperature(method, temperature)) for temperature in (_HOT, _HOTTER))
    for term, pull in hot.items():
        ratio = hotter[term] / pull if pull else 1.0
        assert _LEAST < ratio < _MOST, (
            f"from T = {_HOT:g} to {_HOTTER:g} the gradient of the term '{term}' changes by a factor of {ratio:.2g}, "
            "and should not: is T^2 missing?"
        )


@check
def minimal_at_agreement(method: Method) -> None:
    """A student that answers exactly as its teacher has nothing left to learn from it."""
    if method.family not in _IMITATING:
        raise SkipTest("its family does not promise it")
    step = without_task(ORDINARY.step(method))
    if step.auxiliary is not None or len(step.students) > 1 or len(step.teachers) != 1:
        raise SkipTest("student and teacher are not compared directly")
    same = _agreeing(step)
    if not same:
        raise SkipTest("it looks at nothing that both student and teacher have")
    noise = torch.Generator().manual_seed(0)
    others = [
        {tap: leaf + _NOISE * torch.randn(leaf.shape, generator=noise, dtype=leaf.dtype) for tap, leaf in same.items()}
        for _ in range(3)
    ]
    (least, slope), *elsewhere = (_value_and_slope(method, step, leaves) for leaves in (same, *others))
    if not any(slopes for _, slopes in elsewhere):
        raise SkipTest("it adds no term to the task's")
    value, steepest = min(value for value, _ in elsewhere), max(slopes for _, slopes in elsewhere)
    assert least <= value + _NEGLIGIBLE * abs(value), (
        f"where the student agrees with its teacher the loss is {least:.3g}, and {value:.3g} a little beside it"
    )
    assert slope <= _NEGLIGIBLE * steepest, (
        f"where the student agrees with its teacher the gradient must vanish, and is {slope:.3g} "
        f"({steepest:.3g} a little beside it)"
    )


CHECKS = (temperature_scaling, minimal_at_agreement)


def _at_temperature(method: Method, temperature: float) -> Method:
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}
    try:
        return construct(type(method), {**fields, "temperature": temperature}, where=type(method).__name__)
    except BadInput as error:
        raise SkipTest(f"temperatures as high as {temperature:g} are refused") from error


def _pulls(method: Method) -> dict[str, float]:
    """How strongly each term pulls at all that is trained."""
    step = without_task(ORDINARY.step(method))
    leaves = list(trained(step).values())
    return {
        term: _norm(torch.autograd.grad(total({term: loss}), leaves, retain_graph=True, allow_unused=True))
        for term, loss in ORDINARY.losses(method, step).items()
        if torch.as_tensor(loss).requires_grad
    }


def _agreeing(step: Step) -> dict[str, Tensor]:
    """What the student would answer if it were the teacher, by its taps; pairs them by kind and in order.

    Attention maps stand for their logarithms: rows of probabilities cannot move freely.
    """
    theirs: dict[str, Iterator[Tensor]] = {}
    for kind in {_kind(tap) for tap in step.teacher}:
        theirs[kind] = iter([tensor for tap, tensor in step.teacher.items() if _kind(tap) == kind])
    found = {tap: next(theirs.get(_kind(tap), iter(())), None) for tap in step.student}
    return {
        tap: (tensor.log() if _kind(tap) == "attention" else tensor).clone()
        for tap, tensor in found.items()
        if tensor is not None
    }


def _value_and_slope(method: Method, step: Step, leaves: dict[str, Tensor]) -> tuple[float, float]:
    free = {tap: leaf.detach().requires_grad_() for tap, leaf in leaves.items()}
    taps = {tap: leaf.softmax(-1) if _kind(tap) == "attention" else leaf for tap, leaf in free.items()}
    there = dataclasses.replace(step, students=[{**step.student, **taps}])
    loss = total(ORDINARY.losses(method, there))
    if not loss.requires_grad:
        return loss.item(), 0.0
    return loss.item(), _norm(torch.autograd.grad(loss, list(free.values()), allow_unused=True))


def _kind(tap: str) -> str:
    return re.sub(r"\d+$", "", tap)


def _norm(gradients: tuple[Tensor | None, ...]) -> float:
    return math.hypot(*(torch.linalg.vector_norm(gradient).item() for gradient in gradients if gradient is not None))
