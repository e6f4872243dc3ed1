"""Logit standardisation against Sun et al. 2024, algorithms 1 and 2, row by row."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch

from kdbench import NotApplicable
from kdbench.testing import example_step
from kdbench_plugins.methods.logit_standardization import LogitStandardization, standardised


def softened(row, temperature):
    mean, deviation = statistics.mean(row), statistics.stdev(row)
    powers = [math.exp((logit - mean) / deviation / temperature) for logit in row]
    return [power / sum(powers) for power in powers]


def by_hand(step, temperature):
    rows = list(zip(step.teacher["logits"].tolist(), step.student["logits"].tolist(), strict=True))
    total = 0.0
    for teacher, student in rows:
        pairs = zip(softened(teacher, temperature), softened(student, temperature), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    return temperature**2 * total / len(rows)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("answers", [1, 3])
def test_both_terms_are_the_weighted_algorithm(temperature, answers):
    method = LogitStandardization(temperature=temperature, hard_weight=0.3, soft_weight=5.0)
    step = example_step(method, dtype=torch.float64, answers=answers)
    losses = method.losses(step)
    # The authors' 1e-7 beside the deviation is not in the algorithm.
    assert losses["soft"].item() == pytest.approx(5 * by_hand(step, temperature), rel=1e-5)
    assert losses["task"].item() == pytest.approx(0.3 * step.task_loss(step.student["logits"]).item(), rel=1e-12)


def test_rows_have_mean_zero_and_deviation_one():
    logits = example_step(LogitStandardization(), dtype=torch.float64).teacher["logits"]
    for row in standardised(7 * logits - 3).tolist():
        assert statistics.mean(row) == pytest.approx(0, abs=1e-12)
        assert statistics.stdev(row) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 5.0), (0.1, 0.0), (30.0, -2.0)])
def test_a_student_that_shifts_and_scales_the_teachers_logits_has_nothing_to_learn(scale, shift):
    step = example_step(LogitStandardization(), dtype=torch.float64)
    logits = (scale * step.teacher["logits"] + shift).requires_grad_()
    soft = LogitStandardization().losses(replace(step, students=[{"logits": logits}]))["soft"]
    soft.backward()
    assert soft.item() == pytest.approx(0, abs=1e-10)
    assert logits.grad.abs().max() < 1e-4


def test_shifting_and_scaling_either_side_changes_nothing():
    step = example_step(LogitStandardization(), dtype=torch.float64)
    before = LogitStandardization().losses(step)["soft"].item()
    students = [{"logits": 3 * step.student["logits"] + 1}]
    teachers = [{"logits": 0.5 * step.teacher["logits"] - 4}]
    after = LogitStandardization().losses(replace(step, students=students, teachers=teachers))["soft"].item()
    assert after == pytest.approx(before, rel=1e-5)


def test_an_undecided_row_gives_finite_gradients():
    step = example_step(LogitStandardization())
    undecided = torch.zeros(8, 5, requires_grad=True)
    soft = LogitStandardization().losses(replace(step, students=[{"logits": undecided}]))["soft"]
    soft.backward()
    assert soft.isfinite()
    assert undecided.grad.isfinite().all()


def test_two_classes_are_refused():
    with pytest.raises(NotApplicable, match="three classes"):
        example_step(LogitStandardization(), classes=2)
    example_step(LogitStandardization(), classes=3)
