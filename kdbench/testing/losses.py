"""Checks of the terms of a loss: their form, and their values in every situation that a run may bring."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from unittest import SkipTest

import torch
from torch import Tensor, nn

from kdbench.method import Method, Step
from kdbench.testing.check import Check, check, named
from kdbench.testing.situations import (
    MAPS,
    ORDINARY,
    PROGRESS,
    SEQUENCES,
    WIDE,
    Situation,
    assert_finite,
    total,
    works,
)
from kdbench.testing.state import seeded

_FULL, _HALF = 8, 4
_CLOSE = 1e-8  # in float64, relative


@check
def scalar_terms(method: Method) -> None:
    """The terms are added up and each is logged: of a vector nobody would know what was minimised."""
    for progress in PROGRESS:
        with named(f"progress {progress:g}"):
            losses = ORDINARY.losses(method, ORDINARY.step(method, progress))
            assert losses, "losses returned no term"
            for term, loss in losses.items():
                assert isinstance(term, str), f"terms have names, and {term!r} is none"
                assert isinstance(loss, Tensor), f"the term '{term}' must be a tensor"
                assert loss.ndim == 0, f"the term '{term}' must be a scalar, not of shape {tuple(loss.shape)}"


@check
def finite_terms(method: Method) -> None:
    """One NaN ends a trial, and networks do come to be very sure, or to answer nothing at all."""
    for name, extreme in EXTREMES.items():
        for progress in PROGRESS:
            with named(f"{name}, progress {progress:g}"):
                assert_finite(ORDINARY.losses(method, extreme(ORDINARY.step(method, progress))))


@check
def deterministic(method: Method) -> None:
    """Who repeats a run under the same seed must get the same numbers; draw from torch's global generator only."""
    for progress in PROGRESS:
        with named(f"progress {progress:g}"):
            first, second = (_seeded_losses(method, progress) for _ in range(2))
            for term, loss in first.items():
                same = torch.as_tensor(loss).equal(torch.as_tensor(second[term]))
                assert same, f"the term '{term}' must be the same under the same seed"


@check
def channels_last(method: Method) -> None:
    """On fast hardware features have this memory layout: .reshape takes it, .view does not."""
    for usual in (MAPS, SEQUENCES):
        try:
            works(method, usual)
        except (AssertionError, SkipTest):
            continue  # then it is not the layout that it fails by
        settings = {**usual.settings, "channels_last": True}
        works(method, dataclasses.replace(usual, name=f"channels_last, {usual.name}", settings=settings))


@check
def batch_coupling(method: Method) -> None:
    """Whether a weight means the same at another batch size must be declared, as `batch_coupled`."""
    differing = [progress for progress in PROGRESS if not _is_mean_over_batch(method, progress)]
    if method.batch_coupled:
        assert differing, "it declares batch_coupled, and its loss is the mean of those of the batch's halves"
    elif differing:
        if _draws(method):
            raise SkipTest("its losses are drawn at random, so that batches cannot be compared")
        raise AssertionError(
            f"progress {differing[0]:g}: the loss of a batch must be the mean of those of its halves, or the method "
            "declare batch_coupled = True"
        )


def _is_mean_over_batch(method: Method, progress: float) -> bool:
    step = ORDINARY.step(method, progress, batch=_FULL)
    whole = _value(method, step)
    if whole != _value(method, step):
        raise SkipTest("its losses do not repeat even for the same batch")
    try:
        halves = [_value(method, _rows(step, rows)) for rows in (slice(0, _HALF), slice(_HALF, _FULL))]
    except Exception as error:
        raise SkipTest(f"half a batch is not taken: {error}") from error
    return abs(whole - sum(halves) / 2) <= _CLOSE * max(abs(whole), 1.0)


def _value(method: Method, step: Step) -> float:
    """The loss of a step, its auxiliary modules in eval mode (norms couple examples by design) and left as they are."""
    auxiliary = None if step.auxiliary is None else copy.deepcopy(step.auxiliary).eval()
    teachers = [{tap: tensor.clone() for tap, tensor in taps.items()} for taps in step.teachers]
    with seeded(0):
        losses = ORDINARY.losses(method, dataclasses.replace(step, auxiliary=auxiliary, teachers=teachers))
    return total(losses).item()


def _rows(step: Step, rows: slice) -> Step:
    students = [{tap: tensor.detach()[rows].requires_grad_() for tap, tensor in taps.items()} for taps in step.students]
    teachers = [{tap: tensor[rows] for tap, tensor in taps.items()} for taps in step.teachers]
    assert step.labels is not None
    labels = step.labels[rows]
    return dataclasses.replace(
        step,
        students=students,
        teachers=teachers,
        indices=step.indices[rows],
        labels=labels,
        task_loss=lambda logits: nn.functional.cross_entropy(logits, labels),
    )


def _draws(method: Method) -> bool:
    return any(
        not torch.as_tensor(loss).equal(torch.as_tensor(_seeded_losses(method, progress, seed=1)[term]))
        for progress in PROGRESS
        for term, loss in _seeded_losses(method, progress).items()
    )


def _seeded_losses(method: Method, progress: float, seed: int = 0) -> dict[str, Tensor]:
    step = ORDINARY.step(method, progress)
    with seeded(seed):
        return ORDINARY.losses(method, step)


def _altered(change: Callable[[str, Tensor], Tensor]) -> Callable[[Step], Step]:
    """A change of every tap, by its name, in students and teachers alike."""

    def alter(step: Step) -> Step:
        def changed(taps: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {
                tap: change(tap, tensor.detach()).requires_grad_(tensor.requires_grad) for tap, tensor in taps.items()
            }

        students, teachers = ([changed(taps) for taps in networks] for networks in (step.students, step.teachers))
        return dataclasses.replace(step, students=students, teachers=teachers)

    return alter


EXTREMES: Mapping[str, Callable[[Step], Step]] = {
    "an ordinary batch": lambda step: step,
    "very sure answers": _altered(lambda tap, tensor: 1000 * tensor if tap == "logits" else tensor.clone()),
    "features that are all 0": _altered(
        lambda tap, tensor: tensor.clone() if tap == "logits" or tap.startswith("attention") else 0 * tensor
    ),
}


def _works_in(situation: Situation, name: str, reason: str) -> Check:
    return Check(name, reason, lambda method: works(method, situation))


CHECKS = (
    scalar_terms,
    finite_terms,
    deterministic,
    _works_in(
        Situation("a batch of one", {**WIDE, "batch": 1}, built_on=_FULL),
        "batch_of_one",
        "The last batch of an epoch may hold a single example.",
    ),
    _works_in(
        Situation("a last partial batch", {**WIDE, "batch": 3}, built_on=_FULL),
        "partial_batch",
        "The last batch of an epoch is smaller than that to which auxiliary modules were built.",
    ),
    _works_in(Situation("float32"), "float32", "It is what networks are trained in."),
    _works_in(
        Situation("bfloat16", {"dtype": torch.bfloat16}),
        "bfloat16",
        "It halves the cost of training: compute differences in full_precision.",
    ),
    _works_in(
        Situation("bfloat16 autocast", {"dtype": torch.bfloat16}, autocast=True),
        "autocast",
        "Under autocast answers are bfloat16, and the parameters of auxiliary modules are not.",
    ),
    channels_last,
    _works_in(SEQUENCES, "one_position_axis", "Features of text and speech have one position axis, not two."),
    _works_in(
        Situation("several answers per example", {**WIDE, "answers": 3}, refusable=True),
        "several_answers",
        "Where tokens or pixels are labelled, the rows of logits are more than the examples.",
    ),
    _works_in(
        Situation("answers without a class each", {**WIDE, "labelled": False}, refusable=True),
        "unlabelled_answers",
        "Frames of speech have no label each: refuse with NotApplicable, or do without.",
    ),
    batch_coupling,
)
