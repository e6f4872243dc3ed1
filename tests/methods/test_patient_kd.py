"""Patient KD against Sun et al. 2019: which stages are matched, and the distance of their unit states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.kd import KD
from kdbench_plugins.methods.patient_kd import PatientKD, matched


def mean_state(feature):
    """The mean over positions of one example's feature [channels, *positions]."""
    return np.array([sum(channel.reshape(-1)) / channel.size for channel in feature])


def patience_by_hand(step, stages):
    """The mean over matched stages of the mean over examples and channels of (W s / |W s| - t / |t|)^2."""
    distances = []
    for index, (own, other) in enumerate(stages):
        student, teacher = step.student[own].detach().numpy(), step.teacher[other].numpy()
        layer = step.auxiliary[index]
        squares = []
        for example in range(len(student)):
            state, goal = mean_state(student[example]), mean_state(teacher[example])
            if isinstance(layer, nn.Linear):
                state = layer.weight.detach().numpy() @ state + layer.bias.detach().numpy()
            state, goal = (vector / np.sqrt((vector**2).sum()) for vector in (state, goal))
            squares += list((state - goal) ** 2)
        distances.append(sum(squares) / len(squares))
    return sum(distances) / len(distances)


@pytest.mark.parametrize("positions", [(6,), (4, 5), (3, 2, 3)])
def test_patience_is_the_mean_squared_distance_of_unit_states(positions):
    method = PatientKD(patience_weight=2.5)
    step = example_step(method, batch=3, positions=positions, dtype=torch.float64)
    expected = 2.5 * patience_by_hand(step, [(f"stage{i}", f"stage{i}") for i in (1, 2, 3)])
    losses = method.losses(step)
    assert losses["patience"].item() == pytest.approx(expected, rel=1e-10)
    answers = KD(temperature=10.0, hard_weight=0.3, soft_weight=0.7).losses(step)
    assert losses == {**answers, "patience": losses["patience"]}


def with_stages(step, students, teachers):
    """The step with so many stages each, all of 3 channels, each filled with its own number."""

    def taps(count, offset):
        stages = {f"stage{i}": torch.full((2, 3, 4), offset + i, dtype=torch.float64) for i in range(1, count + 1)}
        return {"logits": step.student["logits"].detach(), **stages}

    return replace(step, students=[taps(students, 0)], teachers=[taps(teachers, 100)])


@pytest.mark.parametrize(
    ("students", "teachers", "pairs"),
    [
        (6, 12, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]),
        (3, 12, [(1, 4), (2, 8), (3, 12)]),
        (2, 5, [(1, 2), (2, 4)]),
        (3, 3, [(1, 1), (2, 2), (3, 3)]),
        (3, 2, [(1, 1), (2, 2)]),
        (1, 3, [(1, 3)]),
    ],
)
def test_stages_at_regular_depths_are_matched(students, teachers, pairs):
    step = with_stages(example_step(PatientKD()), students, teachers)
    found = [(int(own[0, 0]), int(other[0, 0]) - 100) for own, other in matched(step)]
    assert found == pairs


def test_widths_that_agree_need_no_map_and_others_one_each():
    step = example_step(PatientKD(), dtype=torch.float64)
    assert [(layer.in_features, layer.out_features) for layer in step.auxiliary] == [(4, 6), (8, 12), (12, 18)]
    same = with_stages(step, 3, 3)
    assert list(PatientKD().build_auxiliary(same).parameters()) == []


def test_only_directions_count():
    method = PatientKD()
    step = example_step(method, dtype=torch.float64)
    step = replace(step, teachers=[{**step.teacher, **{f"stage{i}": step.student[f"stage{i}"] * 7 for i in (1, 2, 3)}}])
    step = replace(step, auxiliary=method.build_auxiliary(step))
    assert method.losses(step)["patience"].item() == pytest.approx(0, abs=1e-28)


def test_the_defaults_are_those_of_the_authors_code():
    assert PatientKD() == PatientKD(temperature=10.0, hard_weight=0.3, soft_weight=0.7, patience_weight=500.0)


def test_without_patience_it_is_kd():
    method = PatientKD(patience_weight=0.0, temperature=4.0, hard_weight=0.1, soft_weight=0.9)
    step = example_step(method)
    losses = method.losses(step)
    assert losses.pop("patience").item() == 0
    assert losses == KD().losses(step)


def test_it_keeps_the_contract_at_other_weights():
    check_method(PatientKD(patience_weight=0.1, temperature=5.0))
