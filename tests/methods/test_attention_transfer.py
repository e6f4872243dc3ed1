"""Attention transfer against the authors' code, written out in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench import stage_taps
from kdbench.testing import example_step
from kdbench_plugins.methods.attention_transfer import AttentionTransfer


def attention(feature):
    strength = (feature**2).mean(1).reshape(len(feature), -1)
    return strength / np.sqrt((strength**2).sum(1, keepdims=True))


def step_at_equal_positions(positions=(4, 4)):
    """Student and teacher stages at the same positions, with other numbers of channels."""
    step = example_step(AttentionTransfer(), positions=positions, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    taps = {
        name: torch.randn(len(feature), 6, *feature.shape[2:], generator=generator, dtype=torch.float64)
        for name, feature in step.student.items()
        if name != "logits"
    }
    return replace(step, teachers=[taps])


@pytest.mark.parametrize("positions", [(7,), (4, 5)])
def test_it_is_the_sum_over_stages_of_the_mean_squared_difference(positions):
    step = step_at_equal_positions(positions)
    expected = 0.0
    for student, teacher in zip(stage_taps(step.student), stage_taps(step.teacher), strict=True):
        difference = attention(student.detach().numpy()) - attention(teacher.numpy())
        expected += (difference**2).sum() / difference.size
    losses = AttentionTransfer().losses(step)
    assert losses["attention"].item() == pytest.approx(1000 * expected, rel=1e-10)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_a_value_worked_out_by_hand():
    # Student: mean squares (9 + 16) / 2 and 0, so (1, 0). Teacher: 9 and 16, so (9, 16) / sqrt(337).
    student = torch.tensor([[[3.0, 0.0], [4.0, 0.0]]], dtype=torch.float64)
    teacher = torch.tensor([[[3.0, -4.0]]], dtype=torch.float64)
    expected = ((1 - 9 / 337**0.5) ** 2 + 256 / 337) / 2
    assert AttentionTransfer().distance(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_scale_of_a_feature_and_its_number_of_channels_do_not_matter(scale):
    feature = example_step(AttentionTransfer(), dtype=torch.float64).teacher["stage1"]
    repeated = torch.cat([feature, -feature], dim=1)
    assert AttentionTransfer().distance(scale * repeated, feature).item() == pytest.approx(0, abs=1e-28)


def test_a_dead_feature_gives_finite_gradients():
    dead = torch.zeros(2, 3, 4, 4, requires_grad=True)
    AttentionTransfer().distance(dead, torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))).backward()
    assert dead.grad.isfinite().all()


def test_where_the_numbers_of_stages_differ_the_last_ones_are_paired():
    step = step_at_equal_positions()
    student = {name: step.student[name] for name in ("logits", "stage2", "stage3")}
    expected = sum(
        AttentionTransfer().distance(step.student[name], step.teacher[name]) for name in ("stage2", "stage3")
    )
    shorter = {"logits": student["logits"], "stage1": student["stage2"], "stage2": student["stage3"]}
    losses = AttentionTransfer(weight=1.0).losses(replace(step, students=[shorter]))
    torch.testing.assert_close(losses["attention"], expected)


def test_bfloat16_features_are_compared_in_float32():
    step = example_step(AttentionTransfer(), dtype=torch.bfloat16)
    assert AttentionTransfer().losses(step)["attention"].dtype == torch.float32


def test_channels_last_changes_nothing():
    values = [
        AttentionTransfer().losses(example_step(AttentionTransfer(), dtype=torch.float64, channels_last=layout))
        for layout in (False, True)
    ]
    torch.testing.assert_close(values[0], values[1])
