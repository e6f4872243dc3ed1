"""KD against Hinton et al. 2015, section 2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench.testing import example_step
from kdbench_plugins.methods.kd import KD


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def arrays(step):
    return step.student["logits"].detach().numpy(), step.teacher["logits"].numpy()


@pytest.mark.parametrize("temperature", [1.0, 4.0, 50.0])
def test_both_terms_are_the_weighted_equations(temperature):
    method = KD(temperature=temperature, hard_weight=0.3, soft_weight=0.6)
    step = example_step(method, dtype=torch.float64)
    targets = torch.arange(8) % 5
    step = replace(step, task_loss=lambda logits: torch.nn.functional.cross_entropy(logits, targets))
    losses = method.losses(step)

    student, teacher = arrays(step)
    hard = -np.log(softmax(student)[np.arange(8), targets.numpy()]).mean()
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    soft = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    assert losses.keys() == {"task", "soft"}
    assert losses["task"].item() == pytest.approx(0.3 * hard, rel=1e-10)
    assert losses["soft"].item() == pytest.approx(0.6 * soft, rel=1e-9)


def test_the_defaults_are_those_of_the_small_image_protocol():
    assert KD() == KD(temperature=4.0, hard_weight=0.1, soft_weight=0.9)


def test_the_soft_term_vanishes_with_its_gradient_where_the_student_is_the_teacher():
    step = example_step(KD(), dtype=torch.float64)
    copy = step.teacher["logits"].clone().requires_grad_()
    soft = KD().losses(replace(step, students=[{"logits": copy}]))["soft"]
    soft.backward()
    assert soft.item() == 0
    assert copy.grad is not None
    assert copy.grad.abs().max() < 1e-15


def test_the_gradient_keeps_its_size_as_the_temperature_grows():
    def gradient(temperature):
        step = example_step(KD(), dtype=torch.float64)
        KD(temperature=temperature).losses(step)["soft"].backward()
        return step.student["logits"].grad.norm().item()

    # Its limit is (z - v) / classes; without T^2 it would fall a hundredfold from one to the other.
    assert gradient(100.0) == pytest.approx(gradient(1000.0), rel=0.05)


def test_rows_may_be_tokens_of_any_number():
    step = example_step(KD(), batch=2, answers=7, dtype=torch.float64)
    student, teacher = arrays(step)
    p, q = softmax(teacher / 4), softmax(student / 4)
    assert student.shape == (14, 5)
    assert KD().losses(step)["soft"].item() == pytest.approx(0.9 * 16 * (p * np.log(p / q)).sum() / 14, rel=1e-9)
