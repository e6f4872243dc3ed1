"""Deep supervision, independent pair, shuffled teacher: what they share with what they control, and what they lack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdbench.losses import soft_loss
from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.deep_supervision import DeepSupervision
from kdbench_plugins.methods.dml import DML
from kdbench_plugins.methods.independent_pair import IndependentPair
from kdbench_plugins.methods.kd import KD
from kdbench_plugins.methods.scratch import Scratch
from kdbench_plugins.methods.self_distillation import SelfDistillation
from kdbench_plugins.methods.shuffled_teacher import ShuffledTeacher

F64 = torch.float64


@pytest.mark.parametrize(
    "method", [DeepSupervision(), IndependentPair(), ShuffledTeacher()], ids=lambda m: type(m).__name__
)
def test_contract(method):
    check_method(method)
    assert method.family == "control"


def test_deep_supervision_is_self_distillation_without_its_own_teaching():
    step = example_step(SelfDistillation(), dtype=F64)
    distilled = SelfDistillation(soft_weight=0.0, hint_weight=0.0).losses(step)
    ours = DeepSupervision().losses(step)
    torch.testing.assert_close(ours["exits"], distilled["exits"], rtol=1e-12, atol=0)
    torch.testing.assert_close(ours["task"], distilled["task"], rtol=0, atol=0)
    assert ours.keys() == {"task", "exits"}


def test_an_independent_pair_is_mutual_learning_without_the_coupling():
    step = example_step(DML(), dtype=F64)
    ours, coupled = IndependentPair().losses(step), DML(mutual_weight=0.0).losses(step)
    torch.testing.assert_close(ours["task"], coupled["task"])
    ours["task"].backward()
    alone = step.students[0]["logits"].detach().requires_grad_()
    Scratch().losses(replace(step, students=[{"logits": alone}]))["task"].backward()
    torch.testing.assert_close(step.students[0]["logits"].grad, alone.grad)


def test_nobody_gets_the_answer_to_their_own_example():
    step = example_step(KD(), batch=7, dtype=F64)
    torch.manual_seed(0)
    for _ in range(50):
        given = ShuffledTeacher().teacher_logits(step)
        own = step.teacher["logits"]
        assert sorted(given.tolist()) == sorted(own.tolist())
        assert not (given == own).all(dim=1).any()


def test_the_placebo_has_the_loss_of_kd():
    step = example_step(KD(), batch=2, dtype=F64)
    losses = ShuffledTeacher(temperature=3.0).losses(step)  # of two rows, each gets the other's
    expected = 0.9 * soft_loss(step.student["logits"], step.teacher["logits"].flip(0), 3.0)
    torch.testing.assert_close(losses["soft"], expected)
    torch.testing.assert_close(losses["task"], KD().losses(step)["task"])
