"""The controls: what they share with what they control, and what they lack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdbench import NotApplicable
from kdbench.losses import soft_loss
from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.class_mean_teacher import ClassMeanTeacher
from kdbench_plugins.methods.deep_supervision import DeepSupervision
from kdbench_plugins.methods.dml import DML
from kdbench_plugins.methods.independent_pair import IndependentPair
from kdbench_plugins.methods.kd import KD
from kdbench_plugins.methods.scratch import Scratch
from kdbench_plugins.methods.self_distillation import SelfDistillation
from kdbench_plugins.methods.shuffled_teacher import ShuffledTeacher
from kdbench_plugins.methods.untrained_teacher import UntrainedTeacher

F64 = torch.float64


CONTROLS = [DeepSupervision(), IndependentPair(), ShuffledTeacher(), ClassMeanTeacher(), UntrainedTeacher()]


@pytest.mark.parametrize("method", CONTROLS, ids=lambda method: type(method).__name__)
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


def test_every_example_follows_the_mean_answer_to_its_class():
    method = ClassMeanTeacher(temperature=2.0)
    step = example_step(method, batch=9, classes=3, dtype=F64)
    answers = (step.teacher["logits"] / 2).softmax(dim=1)
    first = (method.teacher_logits(step) / 2).softmax(dim=1)
    means = torch.stack([answers[step.labels == label].mean(0) for label in range(3)])
    torch.testing.assert_close(first, means[step.labels])
    again = (method.teacher_logits(step) / 2).softmax(dim=1)
    torch.testing.assert_close(again, first)  # the same rows again do not move a mean
    assert "sums" in step.auxiliary.state_dict()


def test_rows_without_a_class_have_no_mean():
    with pytest.raises(NotApplicable, match="a class each"):
        ClassMeanTeacher().build_auxiliary(replace(example_step(KD()), labels=None))
