"""OFA against Hao et al. 2023: the enhanced target, on the answer and on every exit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench import NotApplicable, soft_loss
from kdbench.testing import check_method, example_step
from kdbench_plugins.methods._exits import exit_answers
from kdbench_plugins.methods.ofa import OFA


def softmax(rows):
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def enhanced(student, teacher, labels, gamma):
    """The mean over examples of the authors' loss, class by class."""
    total = 0.0
    for p_s, p_t, label in zip(softmax(student), softmax(teacher), labels, strict=True):
        for c in range(len(p_s)):
            weight = (1 + p_t[c]) ** gamma - 1 if c == label else p_t[c] ** gamma
            total -= weight * np.log(p_s[c])
    return total / len(labels)


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_answer_and_exits_follow_the_enhanced_target(gamma):
    method = OFA(gamma=gamma, soft_weight=0.7, exit_weight=0.3)
    step = example_step(method, batch=3, dtype=torch.float64)
    teacher, labels = step.teacher["logits"].numpy(), step.labels.tolist()
    losses = method.losses(step)
    answers = [logits.detach().numpy() for logits, _ in exit_answers(step)]
    assert len(answers) == 2
    expected = sum(enhanced(answer, teacher, labels, gamma) for answer in answers)
    assert losses["exits"].item() == pytest.approx(0.3 * expected, rel=1e-10)
    final = enhanced(step.student["logits"].detach().numpy(), teacher, labels, gamma)
    assert losses["soft"].item() == pytest.approx(0.7 * final, rel=1e-10)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_without_enhancement_it_has_the_gradient_of_plain_distillation():
    step = example_step(OFA(gamma=1.0), dtype=torch.float64)
    logits = step.student["logits"]
    (own,) = torch.autograd.grad(OFA(gamma=1.0).losses(step)["soft"], logits)
    (plain,) = torch.autograd.grad(soft_loss(logits, step.teacher["logits"], temperature=1.0), logits)
    torch.testing.assert_close(own, plain)


def test_the_surer_the_teacher_the_more_the_true_class_weighs():
    step = example_step(OFA(), batch=2, classes=2, dtype=torch.float64)
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    sure = torch.tensor([[0.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    step = replace(step, students=[{**step.student, "logits": logits}], labels=torch.tensor([1, 1]))
    OFA(gamma=2.0).losses(replace(step, teachers=[{"logits": sure}]))["soft"].backward()
    assert logits.grad[1, 1] < logits.grad[0, 1] < 0


def test_answers_without_classes_are_not_applicable():
    step = example_step(OFA())
    with pytest.raises(NotApplicable, match="have no class each"):
        OFA().build_auxiliary(replace(step, labels=None))


def test_it_keeps_the_contract_at_other_powers():
    check_method(OFA(gamma=1.0))
    check_method(OFA(gamma=3.0, soft_weight=0.0))
