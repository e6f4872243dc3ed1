"""SP against Tung & Mori 2019, section 3, one pair of examples at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.sp import SP, similarities


def gram(feature):
    """The rows of products of all pairs of examples, each divided by its length."""
    flat = [example.flatten().tolist() for example in feature]
    products = [[sum(a * b for a, b in zip(first, second, strict=True)) for second in flat] for first in flat]
    lengths = [sum(value**2 for value in row) ** 0.5 for row in products]
    return [[value / length for value in row] for row, length in zip(products, lengths, strict=True)]


@pytest.mark.parametrize("positions", [(6,), (4, 5)])
@pytest.mark.parametrize("batch", [2, 5])
def test_it_is_the_squared_frobenius_distance_over_the_squared_batch(positions, batch):
    method = SP(weight=7.0)
    step = example_step(method, batch=batch, positions=positions, dtype=torch.float64)
    student, teacher = gram(step.student["stage3"]), gram(step.teacher["stage3"])
    total = sum((student[i][j] - teacher[i][j]) ** 2 for i in range(batch) for j in range(batch))
    losses = method.losses(step)
    assert losses["similarity"].item() == pytest.approx(7 * total / batch**2, rel=1e-10)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_it_vanishes_with_its_gradient_where_the_student_is_the_teacher():
    step = example_step(SP(), dtype=torch.float64)
    copy = step.teacher["stage3"].clone().requires_grad_()
    similarity = SP().losses(replace(step, students=[{**step.student, "stage3": copy}]))["similarity"]
    similarity.backward()
    assert similarity.item() == 0
    assert copy.grad.abs().max() == 0


def test_scaling_a_feature_and_reordering_its_neurons_changes_nothing():
    feature = example_step(SP(), dtype=torch.float64).teacher["stage3"]
    torch.testing.assert_close(similarities(3 * feature.flip(1).flip(2)), similarities(feature))


def test_a_reordered_batch_is_another_similarity():
    step = example_step(SP(), dtype=torch.float64)
    shuffled = {**step.student, "stage3": step.teacher["stage3"].flip(0)}
    assert SP().losses(replace(step, students=[shuffled]))["similarity"] > 1


def test_a_batch_of_one_has_no_similarity_to_match():
    step = example_step(SP(), batch=1, dtype=torch.float64)
    similarity = SP().losses(step)["similarity"]
    similarity.backward()
    assert similarity.item() == pytest.approx(0, abs=1e-25)
    assert step.student["stage3"].grad.abs().max() < 1e-10


def test_a_dead_feature_gives_finite_gradients():
    step = example_step(SP())
    dead = torch.zeros_like(step.student["stage3"]).requires_grad_()
    similarity = SP().losses(replace(step, students=[{**step.student, "stage3": dead}]))["similarity"]
    similarity.backward()
    assert similarity.isfinite()
    assert dead.grad.isfinite().all()


def test_bfloat16_features_are_compared_in_float32():
    assert SP().losses(example_step(SP(), dtype=torch.bfloat16))["similarity"].dtype == torch.float32


def test_other_stages_keep_the_contract():
    check_method(SP(student_stage="stage1", teacher_stage="stage2"))
