"""Distilling an ensemble: which mean the student follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench import ALL
from kdbench.testing import example_step
from kdbench_plugins.methods.ensemble import Ensemble
from kdbench_plugins.methods.kd import KD


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_student_follows_the_mean_it_was_told(average, temperature):
    method = Ensemble(average=average, temperature=temperature)
    step = example_step(method, dtype=torch.float64)
    teachers = [teacher["logits"].numpy() for teacher in step.teachers]
    assert len(teachers) == 3
    if average == "probabilities":
        p = sum(softmax(logits / temperature) for logits in teachers) / 3
    else:
        p = softmax(sum(teachers) / 3 / temperature)
    q = softmax(step.student["logits"].detach().numpy() / temperature)
    losses = method.losses(step)
    expected = 0.9 * temperature**2 * (p * np.log(p / q)).sum(1).mean()
    assert losses["soft"].item() == pytest.approx(expected, rel=1e-9)
    assert losses["task"].item() == pytest.approx(0.1 * step.task_loss(step.student["logits"]).item(), rel=1e-12)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_an_ensemble_of_one_is_kd(average):
    step = example_step(Ensemble(), dtype=torch.float64)
    alone = replace(step, teachers=step.teachers[:1])
    torch.testing.assert_close(Ensemble(average=average).losses(alone), KD().losses(alone))


def test_one_confident_teacher_outvotes_the_others_only_by_its_logits():
    # Two teachers say class 0 at odds of 3, one says class 1 at odds of e^30.
    logits = [[np.log(3.0), 0.0], [np.log(3.0), 0.0], [0.0, 30.0]]
    teachers = [{"logits": torch.tensor([row], dtype=torch.float64)} for row in logits]
    step = replace(example_step(Ensemble(), batch=1, classes=2), teachers=teachers)
    probabilities = Ensemble(temperature=1.0).teacher_logits(step).softmax(1)
    geometric = Ensemble(temperature=1.0, average="logits").teacher_logits(step).softmax(1)
    assert probabilities[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-9)
    assert geometric[0, 1] > 0.999


def test_it_asks_for_every_teacher():
    assert Ensemble().needs.teachers == ALL


def test_extreme_teachers_stay_finite():
    step = example_step(Ensemble(), batch=1, classes=2)
    teachers = [{"logits": torch.tensor([[1e4, -1e4]])}, {"logits": torch.tensor([[-1e4, 1e4]])}]
    losses = Ensemble(temperature=1.0).losses(replace(step, teachers=teachers))
    assert losses["soft"].isfinite()
