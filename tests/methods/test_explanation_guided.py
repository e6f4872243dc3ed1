"""Explanation-enhanced KD against Parchami-Araghi et al. 2024, equations 1 and 2, one example and channel at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kdbench.testing import example_step
from kdbench_plugins.methods.explanation_guided import ExplanationGuided, grad_cam


def by_hand(activation, gradient):
    """Grad-CAM of one example's nested lists [channels][positions]."""
    importance = [sum(channel) / len(channel) for channel in gradient]
    sums = [sum(a * w for a, w in zip(column, importance, strict=True)) for column in zip(*activation, strict=True)]
    return [max(0.0, value) for value in sums]


@pytest.mark.parametrize("positions", [(6,), (4, 5)])
def test_a_map_weighs_channels_by_their_mean_gradient(positions):
    step = example_step(ExplanationGuided(), positions=positions, dtype=torch.float64)
    found = grad_cam(step.student, "stage3").flatten(1)
    activations, gradients = (step.student[name].flatten(2).tolist() for name in ("stage3", "gradient3"))
    expected = [by_hand(activation, gradient) for activation, gradient in zip(activations, gradients, strict=True)]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_the_loss_is_one_less_the_cosine_of_the_maps():
    method = ExplanationGuided(weight=3.0)
    step = example_step(method, batch=4, positions=(6,), dtype=torch.float64)
    # the same positions for both, so that nothing is averaged
    teacher = {name: tap[..., : step.student["stage3"].shape[2]] for name, tap in step.teacher.items() if "3" in name}
    step = replace(step, teachers=[{**step.teacher, **teacher}])
    total = 0.0
    for own, other in zip(grad_cam(step.student, "stage3"), grad_cam(step.teacher, "stage3"), strict=True):
        a, b = own.flatten().tolist(), other.flatten().tolist()
        lengths = math.hypot(*a) * math.hypot(*b)  # 0 where a map is dark everywhere: then nothing agrees
        total += 1 - (sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0)
    assert method.losses(step)["explanation"].item() == pytest.approx(3 * total / 4, rel=1e-10)


def test_it_vanishes_where_the_student_looks_where_the_teacher_looks():
    step = example_step(ExplanationGuided(), dtype=torch.float64)
    copy = {name: tap.clone().requires_grad_() for name, tap in step.teacher.items()}
    losses = ExplanationGuided().losses(replace(step, students=[copy]))
    assert losses["soft"].item() == pytest.approx(0, abs=1e-12)
    assert losses["explanation"].item() == pytest.approx(0, abs=1e-12)


def test_a_map_of_zeros_harms_nothing():
    step = example_step(ExplanationGuided(), dtype=torch.float64)
    dark = {**step.student, "stage3": torch.zeros_like(step.student["stage3"], requires_grad=True)}
    loss = ExplanationGuided().losses(replace(step, students=[dark]))["explanation"]
    loss.backward()
    assert loss.isfinite()
    assert dark["stage3"].grad.isfinite().all()
