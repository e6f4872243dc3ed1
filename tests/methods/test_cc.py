"""CC against Peng et al. 2019, section 3, one pair of examples at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.cc import CC


def unit(point):
    length = math.sqrt(sum(x * x for x in point))
    return [x / length for x in point]


def series(a, b, gamma, order):
    product = sum(x * y for x, y in zip(unit(a), unit(b), strict=True))
    return sum(math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * product**p for p in range(order + 1))


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (0.4, 1), (1.5, 4)])
def test_it_is_the_mean_squared_difference_of_the_series(gamma, order):
    method = CC(gamma=gamma, order=order, weight=7.0)
    step = example_step(method, batch=5, dtype=torch.float64)
    student, teacher = step.student["embedding"].tolist(), step.teacher["embedding"].tolist()
    total = sum(
        (series(student[i], student[j], gamma, order) - series(teacher[i], teacher[j], gamma, order)) ** 2
        for i in range(5)
        for j in range(5)
    )
    losses = method.losses(step)
    assert losses["correlation"].item() == pytest.approx(7 * total / 25, rel=1e-10)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


@pytest.mark.parametrize("gamma", [0.4, 2.0])
def test_at_a_high_order_the_kernel_is_the_gaussian(gamma):
    embedding = example_step(CC(), dtype=torch.float64).teacher["embedding"]
    points = [unit(point) for point in embedding.tolist()]
    gaussian = [
        [math.exp(-gamma * sum((x - y) ** 2 for x, y in zip(a, b, strict=True))) for b in points] for a in points
    ]
    expected = torch.tensor(gaussian, dtype=torch.float64)
    torch.testing.assert_close(CC(gamma=gamma, order=30).kernel(embedding), expected)


def test_it_vanishes_with_its_gradient_where_the_student_is_the_teacher():
    step = example_step(CC(), dtype=torch.float64)
    copy = step.teacher["embedding"].clone().requires_grad_()
    loss = CC().losses(replace(step, students=[{**step.student, "embedding": copy}]))["correlation"]
    loss.backward()
    assert loss.item() == 0
    assert copy.grad.abs().max() == 0


def test_scaling_turning_and_embedding_in_more_dimensions_changes_nothing():
    embedding = example_step(CC(), dtype=torch.float64).teacher["embedding"]
    square = torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotation, _ = torch.linalg.qr(square)
    wider = torch.nn.functional.pad(embedding, (0, 2))
    torch.testing.assert_close(CC().kernel(5 * wider @ rotation), CC().kernel(embedding))


def test_a_reordered_batch_is_another_correlation():
    step = example_step(CC(), dtype=torch.float64)
    shuffled = {**step.student, "embedding": step.teacher["embedding"].flip(0)}
    assert CC().losses(replace(step, students=[shuffled]))["correlation"] > 0.1


def test_a_batch_of_one_has_no_correlation():
    step = example_step(CC(), batch=1, dtype=torch.float64)
    assert CC().losses(step)["correlation"].item() == pytest.approx(0, abs=1e-25)


def test_a_dead_embedding_gives_finite_gradients():
    step = example_step(CC())
    dead = torch.zeros_like(step.student["embedding"]).requires_grad_()
    loss = CC().losses(replace(step, students=[{**step.student, "embedding": dead}]))["correlation"]
    loss.backward()
    assert loss.isfinite()
    assert dead.grad.isfinite().all()


def test_a_higher_order_keeps_the_contract():
    check_method(CC(order=5))
