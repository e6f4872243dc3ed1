"""The curves of a loss: means over examples, however many steps, sizes and terms an epoch has."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kdbench.training.loss_sums import _STEPS, LossSums

SOME = ("task", "soft"), ("task",)
STEPS = st.lists(st.tuples(st.sampled_from(SOME), st.integers(1, 9), st.floats(-1e3, 1e3, width=32)), min_size=1)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def counted(steps: list[tuple[tuple[str, ...], int, float]]) -> LossSums:
    """Steps of these terms and sizes; each term is the given value, and so many together the total."""
    sums = LossSums()
    for terms, size, value in steps:
        sums.add(scalar(len(terms) * value), dict.fromkeys(terms, scalar(value)), size)
    return sums


@given(STEPS, st.sampled_from([1, _STEPS]))
def test_means_are_those_of_the_examples(steps: list[tuple[tuple[str, ...], int, float]], times: int) -> None:
    steps = steps * times
    examples = sum(size for _, size, _ in steps)
    expected = {"loss": math.fsum(len(terms) * size * value for terms, size, value in steps) / examples}
    for name in dict.fromkeys(name for terms, _, _ in steps for name in terms):
        expected[f"loss/{name}"] = math.fsum(size * value for terms, size, value in steps if name in terms) / examples
    assert counted(steps).means(examples) == pytest.approx(expected, rel=1e-5, abs=1e-3)


def test_an_epoch_begins_with_nothing() -> None:
    sums = counted([(("task",), 2, 3.0)] * (_STEPS + 1))
    assert sums.means(2 * (_STEPS + 1)) == {"loss": 3.0, "loss/task": 3.0}
    assert sums.means(1) == {}


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("when", [0, 2 * _STEPS])
def test_one_step_that_is_not_finite_is_not_lost(bad: float, when: int) -> None:
    steps = [(("task",), 1, 1.0)] * (2 * _STEPS)
    steps.insert(when, (("task",), 1, bad))
    assert not math.isfinite(counted(steps).means(len(steps))["loss"])


def test_no_graph_is_kept() -> None:
    sums, total = LossSums(), scalar(1.0) * 2
    sums.add(total, {"task": total}, 1)
    assert not any(value.requires_grad for values in sums._recent.values() for value in values)
