"""FitNets against Romero et al. 2015, equations 2 and 3, and the moment at which its stages change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench.testing import example_step
from kdbench_plugins.methods.fitnets import FitNets
from kdbench_plugins.methods.kd import KD


def same_positions(step):
    """The step with the hint cut down to the positions of the guided stage, so that nothing is averaged."""
    guided, hint = step.student["stage2"], step.teacher["stage2"]
    cut = hint[(slice(None), slice(None), *(slice(size) for size in guided.shape[2:]))].clone()
    return replace(step, teachers=[{**step.teacher, "stage2": cut}])


def hint_by_hand(step):
    """The mean over batch, channels and positions of (W f + b - hint)^2, one number at a time."""
    weight = step.auxiliary.weight.detach().squeeze(-1).numpy()
    bias = step.auxiliary.bias.detach().numpy()
    guided, hint = step.student["stage2"].detach().numpy(), step.teacher["stage2"].numpy()
    squares = []
    for example in range(guided.shape[0]):
        for position in np.ndindex(guided.shape[2:]):
            for channel in range(hint.shape[1]):
                answer = bias[channel]
                for source in range(guided.shape[1]):
                    answer += weight[channel, source] * guided[(example, source, *position)]
                squares.append((answer - hint[(example, channel, *position)]) ** 2)
    return sum(squares) / len(squares)


@pytest.mark.parametrize("positions", [(6,), (4, 5), (3, 2, 3)])
def test_the_hint_is_the_mean_squared_error_after_a_linear_map_of_channels(positions):
    method = FitNets(hint_weight=2.5)
    step = same_positions(example_step(method, batch=3, positions=positions, dtype=torch.float64))
    assert method.losses(step)["hint"].item() == pytest.approx(2.5 * hint_by_hand(step), rel=1e-10)


def test_where_positions_differ_the_larger_feature_is_averaged():
    method = FitNets(hint_weight=1.0)
    step = example_step(method, positions=(3,), dtype=torch.float64)  # stage2: student 2 positions, teacher 3
    hint = step.teacher["stage2"]
    pooled = torch.stack([(hint[..., 0] + hint[..., 1]) / 2, (hint[..., 1] + hint[..., 2]) / 2], dim=-1)
    halved = replace(step, teachers=[{**step.teacher, "stage2": pooled}])
    assert method.losses(step)["hint"].item() == pytest.approx(hint_by_hand(halved), rel=1e-10)


def test_a_perfect_regressor_leaves_no_hint():
    method = FitNets()
    step = same_positions(example_step(method, dtype=torch.float64))
    with torch.no_grad():
        guided = step.student["stage2"]
        answer = step.auxiliary(guided.reshape(*guided.shape[:2], -1)).reshape(step.teacher["stage2"].shape)
    assert method.losses(replace(step, teachers=[{**step.teacher, "stage2": answer}]))["hint"].item() == 0


@pytest.mark.parametrize(
    ("progress", "terms"), [(0.0, {"hint"}), (0.399, {"hint"}), (0.4, {"task", "soft"}), (1.0, {"task", "soft"})]
)
def test_the_stages_change_once_the_fraction_is_spent(progress, terms):
    method = FitNets(hint_fraction=0.4)
    assert method.losses(replace(example_step(method), progress=progress)).keys() == terms


def test_the_hint_stage_trains_the_guided_stage_and_the_regressor_only():
    method = FitNets()
    step = example_step(method)
    sum(method.losses(step).values()).backward()
    assert step.student["logits"].grad is None
    assert step.student["stage2"].grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in step.auxiliary.parameters())


def test_after_the_hint_stage_it_is_kd():
    method = FitNets(temperature=2.0, hard_weight=0.5, soft_weight=0.7)
    step = replace(example_step(method), progress=0.9)
    losses = method.losses(step)
    sum(losses.values()).backward()
    assert losses == KD(temperature=2.0, hard_weight=0.5, soft_weight=0.7).losses(step)
    assert step.student["stage2"].grad is None


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_joint_has_all_terms_at_every_step(progress):
    method = FitNets(stages="joint")
    step = replace(example_step(method), progress=progress)
    losses = method.losses(step)
    assert losses == {**KD().losses(step), "hint": FitNets().hint_loss(step)}


def test_the_stages_are_the_users_choice():
    method = FitNets(hint="stage3", guided="stage1")
    step = example_step(method)
    assert method.needs.student == ("logits", "stage1")
    assert method.needs.teacher == ("logits", "stage3")
    assert step.auxiliary.weight.shape[:2] == (step.teacher["stage3"].shape[1], step.student["stage1"].shape[1])
    assert method.losses(step)["hint"].isfinite()


def test_a_fraction_of_zero_is_kd_from_the_first_step():
    method = FitNets(hint_fraction=0.0)
    assert method.losses(example_step(method)).keys() == {"task", "soft"}
