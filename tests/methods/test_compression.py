"""Pruning and quantising the teacher: what is left of it, and that it stays so."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kdbench.testing import check_method
from kdbench_plugins.methods.int8 import Int8
from kdbench_plugins.methods.magnitude_pruning import MagnitudePruning


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(2), Last(), nn.Linear(12, 5)
    )  # fmt: skip


class Last(nn.Module):
    """The last state of a recurrent layer, whose weights have names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(16, 12, batch_first=True)

    def forward(self, inputs):
        return self.layer(inputs)[0][:, -1]


IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", [Int8(), MagnitudePruning()], ids=lambda method: type(method).__name__)
def test_contract(method):
    check_method(method)
    assert method.needs.student_architecture == "teacher"
    assert method.initial_weights({}, [{"weight": IMAGES}, {}]) == {"weight": IMAGES}


def test_the_smallest_weights_are_taken_until_the_size_is_right():
    student, before = network(), network()
    total = sum(parameter.numel() for parameter in student.parameters())
    MagnitudePruning().prepare(student, parameters=total - 700)
    weights = [parameter for parameter in before.parameters() if parameter.ndim > 1]
    threshold = torch.cat([weight.flatten().abs() for weight in weights]).kthvalue(700).values
    for now, then in zip(student.parameters(), before.parameters(), strict=True):
        assert now.equal(then * (then.abs() > threshold) if then.ndim > 1 else then)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_what_was_taken_stays_away(optimizer):
    student = network()
    MagnitudePruning(sparsity=0.75).prepare(student, parameters=0)
    taken = [parameter == 0 for parameter in student.parameters()]
    moved = copy.deepcopy([parameter.detach() for parameter in student.parameters()])
    steps = optimizer(student.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        steps.zero_grad()
        student(IMAGES).square().mean().backward()
        steps.step()
    for parameter, gone, before in zip(student.parameters(), taken, moved, strict=True):
        if parameter.ndim > 1:
            assert parameter[gone].count_nonzero() == 0
            assert gone.all() or not parameter[~gone].equal(before[~gone])


def test_a_student_that_is_no_smaller_takes_nothing():
    student = network()
    MagnitudePruning().prepare(student, parameters=10**6)
    assert all(now.equal(then) for now, then in zip(student.parameters(), network().parameters(), strict=True))


def test_eight_bits_are_at_most_half_a_step_off():
    student, before = network().eval(), network().eval()
    Int8().deploy(student)
    stored = student.state_dict()["0.parametrizations.weight.original0"]
    assert stored.dtype == torch.int8
    assert stored.abs().amax(dim=(1, 2, 3)).tolist() == [127] * 8, "every channel uses its whole range"
    step = before[0].weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    assert ((student[0].weight - before[0].weight).abs() <= step / 2 + 1e-7).all()
    torch.testing.assert_close(student(IMAGES), before(IMAGES), rtol=0, atol=0.02)
    assert student[4].layer.weight_hh_l0.dtype == torch.float32, "recurrent layers stay as they are"
    assert copy.deepcopy(student)(IMAGES).equal(student(IMAGES))
