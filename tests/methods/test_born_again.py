"""Born-again networks against Furlanello et al. 2018, section 3, and their chain of generations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench.testing import example_step
from kdbench_plugins.methods.born_again import BornAgain


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def test_it_is_cross_entropy_plus_kl_untempered_and_unweighted():
    targets = torch.arange(8) % 5
    step = example_step(BornAgain(), dtype=torch.float64)
    step = replace(step, task_loss=lambda logits: torch.nn.functional.cross_entropy(logits, targets))
    student = log_softmax(step.student["logits"].detach().numpy())
    teacher = log_softmax(step.teacher["logits"].numpy())
    losses = BornAgain().losses(step)
    assert losses["task"].item() == pytest.approx(-student[np.arange(8), targets.numpy()].mean(), rel=1e-10)
    assert losses["soft"].item() == pytest.approx((np.exp(teacher) * (teacher - student)).sum(1).mean(), rel=1e-9)


def test_its_teacher_has_the_students_architecture():
    needs = BornAgain().needs
    assert (needs.teachers, needs.teacher_architecture) == (1, "student")


def test_each_generation_is_taught_by_the_one_before_down_to_hard_labels():
    method, chain = BornAgain(generations=3, temperature=2.0), []
    while method is not None:
        chain.append(method)
        method = method.teacher_method()
    assert chain == [BornAgain(generations=generation, temperature=2.0) for generation in (3, 2, 1)]
