"""KD against Hinton et al. 2015, section 2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench import BadInput
from kdbench.hyperparameters import construct
from kdbench.testing import example_step, run_checks
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


def masked(step, kept):
    """0.9 T^2 KL over the rows `kept` alone, T = 4."""
    student, teacher = (logits[kept] for logits in arrays(step))
    p, q = softmax(teacher / 4), softmax(student / 4)
    return 0.9 * 16 * (p * np.log(p / q)).sum() / kept.sum()


@pytest.mark.parametrize("blank", [0, 3])
def test_rows_whose_top_teacher_class_is_masked_are_left_out_of_the_soft_loss_alone(blank):
    step = example_step(KD(), answers=6, dtype=torch.float64)
    kept = arrays(step)[1].argmax(1) != blank
    assert 0 < kept.sum() < len(kept)
    losses = KD(masked_class=blank).losses(step)
    assert losses["soft"].item() == pytest.approx(masked(step, kept), rel=1e-9)
    assert losses["task"].item() == KD().losses(step)["task"].item()
    losses["soft"].backward()
    moved = step.student["logits"].grad.abs().sum(1).numpy() > 0
    assert moved.tolist() == kept.tolist()


def test_no_class_is_masked_unless_it_is_asked_for():
    step = example_step(KD(), answers=6, dtype=torch.float64)
    everything = np.ones(48, dtype=bool)
    assert KD().losses(step)["soft"].item() == pytest.approx(masked(step, everything), rel=1e-9)
    never_on_top = replace(step, teachers=[{"logits": step.teacher["logits"] - 100 * torch.eye(5)[0]}])
    assert KD(masked_class=0).losses(never_on_top)["soft"].item() == KD().losses(never_on_top)["soft"].item()


def test_where_every_row_is_masked_the_soft_loss_is_zero_and_so_is_its_gradient():
    step = example_step(KD(), dtype=torch.float64)
    silent = replace(step, teachers=[{"logits": step.teacher["logits"] + 100 * torch.eye(5)[0]}])
    soft = KD(masked_class=0).losses(silent)["soft"]
    soft.backward()
    assert soft.item() == 0
    assert step.student["logits"].grad.abs().max() == 0


def test_a_masked_class_keeps_the_contract_but_couples_the_rows_that_it_leaves():
    outcomes = run_checks(KD(masked_class=0))
    assert {outcome.check.name for outcome in outcomes if outcome.status == "failed"} == {"batch_coupling"}
    assert construct(KD, {"masked_class": "0"}, where="kd") == KD(masked_class=0)
    with pytest.raises(BadInput, match="masked_class"):
        construct(KD, {"masked_class": -1}, where="kd")
