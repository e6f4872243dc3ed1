"""Tf-KD_reg against Yuan et al. 2020, section 5, and the authors' code, one class at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kdbench import NotApplicable
from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.label_smoothing import LabelSmoothing
from kdbench_plugins.methods.tf_kd import TfKD


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def by_hand(step, correct, temperature):
    """The mean over rows of KL(designed || student)."""
    rows, total = step.student["logits"].tolist(), 0.0
    for row, label in zip(rows, step.labels.tolist(), strict=True):
        virtual = [correct if index == label else (1 - correct) / (len(row) - 1) for index in range(len(row))]
        designed = softmax([value / temperature for value in virtual])
        total += sum(p * math.log(p / q) for p, q in zip(designed, softmax(row), strict=True))
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 20.0])
@pytest.mark.parametrize("answers", [1, 3])
def test_both_terms_are_the_weighted_equation(temperature, answers):
    method = TfKD(weight=0.3, temperature=temperature, correct=0.9)
    step = example_step(method, dtype=torch.float64, answers=answers)
    losses = method.losses(step)
    assert losses["designed"].item() == pytest.approx(0.3 * by_hand(step, 0.9, temperature), rel=1e-9)
    assert losses["task"].item() == pytest.approx(0.7 * step.task_loss(step.student["logits"]).item(), rel=1e-12)


def test_it_is_the_authors_mean_over_classes_times_a_hundred_on_a_hundred_classes():
    step = example_step(TfKD(), dtype=torch.float64, classes=100)
    student = step.student["logits"].detach().log_softmax(1)
    virtual = torch.full_like(student, 0.01 / 99)
    for row, label in enumerate(step.labels.tolist()):
        virtual[row, label] = 0.99
    target = (virtual / 20).softmax(1)
    mean = (target * (target.log() - student)).mean()
    assert TfKD().losses(step)["designed"].item() == pytest.approx(0.1 * 100 * mean.item(), rel=1e-9)


def test_the_term_vanishes_with_its_gradient_where_the_student_is_the_designed_teacher():
    method = TfKD(temperature=0.5)
    step = example_step(method, dtype=torch.float64)
    logits = method.designed(step, step.student["logits"]).log().detach().requires_grad_()
    designed = method.losses(replace(step, students=[{"logits": logits}]))["designed"]
    designed.backward()
    assert designed.item() == pytest.approx(0, abs=1e-15)
    assert logits.grad.abs().max() < 1e-15


def test_the_designed_teacher_is_sure_of_the_true_class_alone():
    method = TfKD(temperature=0.2)
    step = example_step(method, dtype=torch.float64)
    for row, label in zip(method.designed(step, step.student["logits"]).tolist(), step.labels.tolist(), strict=True):
        assert sum(row) == pytest.approx(1, rel=1e-12)
        assert row.index(max(row)) == label
        assert len({round(value, 12) for index, value in enumerate(row) if index != label}) == 1


def test_very_soft_it_has_the_gradient_of_label_smoothing():
    step, other = (example_step(TfKD(), dtype=torch.float64) for _ in range(2))
    sum(TfKD(weight=0.1, temperature=1e9).losses(step).values()).backward()
    sum(LabelSmoothing(smoothing=0.1).losses(other).values()).backward()
    torch.testing.assert_close(step.student["logits"].grad, other.student["logits"].grad)


def test_it_looks_at_no_teacher():
    assert TfKD().needs.teacher == ()
    assert TfKD().needs.teachers == 0


def test_rows_without_a_class_are_refused():
    with pytest.raises(NotApplicable, match="class each"):
        TfKD().build_auxiliary(replace(example_step(TfKD()), labels=None))


@pytest.mark.parametrize("correct", [0.0, 1.0])
def test_it_keeps_the_contract_at_either_end_of_correct(correct):
    check_method(TfKD(correct=correct))
