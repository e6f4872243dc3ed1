"""DIST against Huang et al. 2022, section 3, with NumPy's own correlations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench.testing import example_step
from kdbench_plugins.methods.dist import DIST, correlations


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("answers", [1, 3])
def test_both_terms_are_one_less_the_mean_correlation(temperature, answers):
    method = DIST(temperature=temperature, inter_weight=0.7, intra_weight=3.0)
    step = example_step(method, dtype=torch.float64, answers=answers)
    student = softmax(step.student["logits"].detach().numpy() / temperature)
    teacher = softmax(step.teacher["logits"].numpy() / temperature)
    by_row = [np.corrcoef(student[row], teacher[row])[0, 1] for row in range(len(student))]
    by_class = [np.corrcoef(student[:, column], teacher[:, column])[0, 1] for column in range(student.shape[1])]
    losses = method.losses(step)
    assert losses["inter"].item() == pytest.approx(0.7 * temperature**2 * (1 - np.mean(by_row)), rel=1e-10)
    assert losses["intra"].item() == pytest.approx(3.0 * temperature**2 * (1 - np.mean(by_class)), rel=1e-10)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_both_terms_vanish_with_their_gradient_where_the_student_is_the_teacher():
    step = example_step(DIST(), dtype=torch.float64)
    copy = step.teacher["logits"].clone().requires_grad_()
    losses = DIST().losses(replace(step, students=[{"logits": copy}]))
    (losses["inter"] + losses["intra"]).backward()
    assert losses["inter"].item() == pytest.approx(0, abs=1e-13)
    assert losses["intra"].item() == pytest.approx(0, abs=1e-13)
    assert copy.grad.abs().max() < 1e-12


def test_shifting_logits_changes_nothing():
    step = example_step(DIST(), dtype=torch.float64)
    shift = torch.arange(8, dtype=torch.float64)[:, None]
    moved = DIST().losses(replace(step, students=[{"logits": step.student["logits"] + shift}]))
    for term in ("inter", "intra"):
        torch.testing.assert_close(moved[term], DIST().losses(step)[term])


@pytest.mark.parametrize("dim", [0, 1])
def test_correlations_of_scaled_shifted_and_turned_round_vectors(dim):
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(correlations(3 * matrix + 2, matrix, dim), one)
    torch.testing.assert_close(correlations(-matrix, matrix, dim), -one)
    assert not correlations(torch.ones_like(matrix), matrix, dim).any()


def test_classes_that_are_rare_in_the_batch_correlate_in_full():
    """Where the authors' 1e-8 beside the product of lengths would drown them."""
    rare = torch.tensor([[1e-6], [2e-6], [4e-6]], dtype=torch.float32)
    assert correlations(rare, 3 * rare, dim=0).item() == pytest.approx(1, abs=1e-5)


def test_in_a_batch_of_one_no_class_teaches():
    step = example_step(DIST(), batch=1, dtype=torch.float64)
    intra = DIST(intra_weight=1.0, temperature=1.0).losses(step)["intra"]
    intra.backward()
    assert intra.item() == 1
    assert step.student["logits"].grad.abs().max() == 0
