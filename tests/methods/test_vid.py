"""VID against Ahn et al. 2019: a Gaussian's surprise at the teacher's stages, one number at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench import common_positions, stage_taps
from kdbench.testing import example_step
from kdbench_plugins.methods.vid import VID, Gaussian


def at_equal_positions(step):
    """The step with teacher stages cut to the student's positions, so that nothing is averaged."""
    cut = {
        name: feature[(..., *(slice(size) for size in step.student[name].shape[2:]))].clone()
        for name, feature in step.teacher.items()
    }
    return replace(step, teachers=[cut])


def surprise(gaussian, student, teacher):
    """-log N(teacher; mu(student), v) + log(2 pi) / 2, its mean over examples, channels and positions."""
    weights = [layer.weight.detach().squeeze(-1).numpy() for layer in gaussian.mean if hasattr(layer, "weight")]
    variance = np.log1p(np.exp(gaussian.spread.detach().numpy()[:, 0])) + 1e-5
    found = []
    for example in range(len(student)):
        for position in np.ndindex(student.shape[2:]):
            hidden = student[(example, slice(None), *position)]
            for weight in weights[:-1]:
                hidden = np.maximum(weight @ hidden, 0)
            mean, value = weights[-1] @ hidden, teacher[(example, slice(None), *position)]
            density = np.exp(-((value - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
            found += list(-np.log(density) - np.log(2 * np.pi) / 2)
    return np.mean(found)


@pytest.mark.parametrize("positions", [(5,), (4, 5), (3, 3, 3)])
def test_it_is_the_surprise_of_a_gaussian_at_every_stage(positions):
    method = VID(weight=0.7)
    step = at_equal_positions(example_step(method, batch=3, positions=positions, dtype=torch.float64))
    for gaussian in step.auxiliary:  # variances that differ from channel to channel
        gaussian.spread.data += torch.linspace(-4, 1, len(gaussian.spread), dtype=torch.float64)[:, None]
    expected = sum(
        surprise(gaussian, step.student[name].detach().numpy(), step.teacher[name].numpy())
        for gaussian, name in zip(step.auxiliary, ("stage3", "stage2", "stage1"), strict=True)
    )
    losses = method.losses(step)
    assert losses["information"].item() == pytest.approx(0.7 * expected, rel=1e-10)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


def test_a_value_worked_out_by_hand():
    gaussian = Gaussian(1, 1).double()
    for layer, weight in ((0, 2.0), (2, 3.0), (4, -1.0)):
        gaussian.mean[layer].weight.data.fill_(weight)
    gaussian.spread.data.fill_(np.log(np.expm1(4 - 1e-5)))
    # mu(1) = -6, mu(-1) = 0 after the ReLU; the teacher is 2 at both places, the variance 4
    found = gaussian(torch.tensor([[[1.0, -1.0]]]).double(), torch.full((1, 1, 2), 2.0).double())
    assert found.item() == pytest.approx(((64 / 4 + np.log(4)) / 2 + (4 / 4 + np.log(4)) / 2) / 2, rel=1e-12)


def test_the_variance_starts_at_five_and_learns():
    step = example_step(VID(), dtype=torch.float64)
    VID().losses(step)["information"].backward()
    for gaussian, stage in zip(step.auxiliary, reversed(stage_taps(step.teacher)), strict=True):
        variance = torch.nn.functional.softplus(gaussian.spread) + 1e-5
        torch.testing.assert_close(
            variance, torch.full((stage.shape[1], 1), 5.0, dtype=torch.float64), rtol=1e-6, atol=0
        )
        assert gaussian.spread.grad.abs().min() > 0


def test_the_best_variance_is_the_mean_squared_error():
    gaussian, teacher = Gaussian(2, 1).double(), torch.randn(4, 1, 9, dtype=torch.float64)
    student = torch.zeros(4, 2, 9, dtype=torch.float64)  # its mean is 0 whatever the weights
    gaussian.spread.data.fill_(torch.log(torch.expm1(teacher.square().mean() - 1e-5)))
    gaussian(student, teacher).backward()
    assert gaussian.spread.grad.abs().item() < 1e-12


def test_where_the_numbers_of_stages_differ_the_last_are_paired():
    step = example_step(VID(), dtype=torch.float64)
    last, middle, _ = (
        gaussian(*common_positions(step.student[name], step.teacher[name]))
        for gaussian, name in zip(step.auxiliary, ("stage3", "stage2", "stage1"), strict=True)
    )
    fewer = {"logits": step.student["logits"], "stage1": step.student["stage2"], "stage2": step.student["stage3"]}
    shorter = replace(step, students=[fewer], auxiliary=step.auxiliary[:2])
    torch.testing.assert_close(VID().losses(shorter)["information"], last + middle)
    assert [gaussian.spread.shape[0] for gaussian in VID().build_auxiliary(shorter)] == [18, 12]
