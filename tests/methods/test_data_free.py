"""Data-free adversarial distillation against Fang et al. 2019, algorithm 1."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from kdbench import DataSpec, Loop, NotApplicable
from kdbench_plugins.methods._generator import Generator
from kdbench_plugins.methods.data_free import DataFree


def linear(seed, features=12, classes=3):
    torch.manual_seed(seed)
    return nn.Linear(features, classes)


def loop(index, spec=None, student=None, teacher=None):
    spec = spec or DataSpec((3, 4), 3)
    student, teacher = student or linear(0), teacher or linear(1).requires_grad_(False)
    asked = [lambda batch, own=own: {"logits": own(batch.inputs.flatten(1))} for own in (student, teacher)]
    step = Loop(asked[:1], asked[1:], None, None, None, spec, size=8, index=index)
    torch.manual_seed(2)
    return replace(step, auxiliary=DataFree(noise=5).build(step))


@pytest.mark.parametrize("index", [0, 1])
def test_the_loss_is_the_mean_distance_of_the_logits_on_generated_inputs(index):
    student, teacher = linear(0), linear(1).requires_grad_(False)
    step = loop(index, student=student, teacher=teacher)
    torch.manual_seed(3)
    found = DataFree(noise=5).loop_losses(step)["disagreement"]
    torch.manual_seed(3)
    inputs = step.auxiliary(8).flatten(1)
    expected = sum(abs(a - b) for a, b in zip(student(inputs).flatten(), teacher(inputs).flatten(), strict=True)) / 24
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def gradients(index):
    student = linear(0)
    step = loop(index, student=student)
    torch.manual_seed(3)
    DataFree(noise=5, student_steps=5).loop_losses(step)["disagreement"].backward()
    return student.weight.grad, [parameter.grad for parameter in step.auxiliary.parameters()]


def test_the_generator_goes_up_where_the_student_goes_down():
    step = loop(0)
    torch.manual_seed(3)
    loss = DataFree(noise=5).loop_losses(step)["disagreement"]
    loss.backward()
    downhill = [parameter.grad.clone() for parameter in step.auxiliary.parameters()]
    # a small step along the negative gradient, as an optimiser takes it, makes the two disagree more
    with torch.no_grad():
        for parameter, gradient in zip(step.auxiliary.parameters(), downhill, strict=True):
            parameter -= 1e-3 * gradient / torch.stack([each.norm() for each in downhill]).norm()
    torch.manual_seed(3)
    assert DataFree(noise=5).loop_losses(step)["disagreement"] > loss


def test_it_moves_once_while_the_student_moves_five_times():
    for index in range(10):
        student, generator = gradients(index)
        assert student.abs().sum() > 0
        assert all((gradient is None) == (index % 5 != 0) for gradient in generator)


@pytest.mark.parametrize("shape", [(7,), (2, 1), (3, 40), (1, 8, 8), (3, 32, 32), (1, 5, 13)])
def test_it_makes_inputs_of_every_shape_and_normalises_them(shape):
    torch.manual_seed(0)
    found = Generator(16, shape)(6)
    assert found.shape == (6, *shape)
    channels = found.transpose(0, 1).flatten(1)
    assert channels.mean(dim=1).abs().max() < 1e-4
    assert torch.allclose(channels.std(dim=1, correction=0), torch.ones(shape[0]), atol=0.01)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [(DataSpec((9,), 3, vocabulary=20), "tokens"), (DataSpec((3, 8, 8), 3, positions=(8, 8)), "positions")],
)
def test_it_has_no_meaning_for_tokens_and_maps(spec, reason):
    with pytest.raises(NotApplicable, match=reason):
        DataFree().build(replace(loop(0), spec=spec))
