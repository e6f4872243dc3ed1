"""The shared pieces of losses, against their equations in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdbench.losses import common_positions, full_precision, soft_loss


def softmax(logits, temperature):
    powers = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def kl_by_hand(student, teacher, temperature):
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        p, q = softmax(teacher_row, temperature), softmax(student_row, temperature)
        total += sum(p_i * math.log(p_i / q_i) for p_i, q_i in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


STUDENT = [[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [0.2, 0.1, 0.0], [5.0, 5.0, -5.0]]
TEACHER = [[2.0, 1.0, -3.0], [0.0, 0.0, 0.0], [-1.0, 4.0, 2.0], [1.0, -1.0, 0.0]]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 100.0])
def test_soft_loss_is_the_equation(temperature):
    loss = soft_loss(double(STUDENT), double(TEACHER), temperature)
    assert loss.item() == pytest.approx(kl_by_hand(STUDENT, TEACHER, temperature), rel=1e-10)


def test_a_value_worked_out_by_hand():
    # Student (1/2, 1/2), teacher (3/4, 1/4), T = 1: 3/4 log(3/2) + 1/4 log(1/2).
    loss = soft_loss(double([[0.0, 0.0]]), double([[math.log(3), 0.0]]), 1.0)
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_its_gradient_is_that_of_the_paper(temperature):
    student = double(STUDENT).requires_grad_()
    soft_loss(student, double(TEACHER), temperature).backward()
    expected = [
        [
            temperature * (q - p) / len(STUDENT)
            for q, p in zip(softmax(s, temperature), softmax(t, temperature), strict=True)
        ]
        for s, t in zip(STUDENT, TEACHER, strict=True)
    ]
    np.testing.assert_allclose(student.grad, expected, rtol=1e-10, atol=1e-15)


def test_at_large_temperature_it_is_the_squared_difference_of_centred_logits():
    # Hinton et al. 2015, section 2.1: T^2 KL tends to sum((z - v)^2) / (2 classes); without T^2 it would vanish.
    centred = [[(s - t) for s, t in zip(*rows, strict=True)] for rows in zip(STUDENT, TEACHER, strict=True)]
    squares = [sum((d - sum(row) / 3) ** 2 for d in row) / 6 for row in centred]
    loss = soft_loss(double(STUDENT), double(TEACHER), 1e4)
    assert loss.item() == pytest.approx(sum(squares) / len(squares), rel=1e-3)


def test_extreme_logits_stay_finite():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = soft_loss(student, torch.tensor([[-1e4, 1e4, 0.0]]), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert student.grad is not None
    assert student.grad.isfinite().all()


logits = arrays(np.float64, (3, 4), elements=st.floats(-30, 30))


@given(logits, logits, st.floats(0.5, 20))
def test_it_is_never_negative_and_zero_only_in_agreement(student, teacher, temperature):
    student, teacher = torch.from_numpy(student), torch.from_numpy(teacher)
    assert soft_loss(student, teacher, temperature).item() >= -1e-9
    assert soft_loss(teacher, teacher, temperature).item() == 0


@given(logits, st.floats(-20, 20), st.floats(0.5, 20))
def test_a_shift_of_all_logits_changes_nothing(student, shift, temperature):
    student = torch.from_numpy(student)
    teacher = student.flip(0)
    shifted = soft_loss(student + shift, teacher - shift, temperature).item()
    assert shifted == pytest.approx(soft_loss(student, teacher, temperature).item(), abs=1e-9, rel=1e-9)


def test_bfloat16_logits_are_compared_in_float32():
    student, teacher = torch.tensor(STUDENT).bfloat16(), torch.tensor(TEACHER).bfloat16()
    loss = soft_loss(student, teacher, 4.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(kl_by_hand(student.tolist(), teacher.tolist(), 4.0), rel=1e-4)


def test_full_precision_widens_and_never_narrows():
    dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    widened = [full_precision(torch.ones(1, dtype=dtype)).dtype for dtype in dtypes]
    assert widened == [torch.float32, torch.float32, torch.float32, torch.float64]


def test_equal_positions_come_back_untouched():
    first, second = torch.ones(2, 3, 4, 5), torch.ones(2, 7, 4, 5)
    matched = common_positions(first, second)
    assert matched[0] is first
    assert matched[1] is second


def test_the_longer_axis_is_averaged_over_overlapping_windows():
    # 5 positions to 2: windows 0-2 and 2-4.
    long, short = double([[[1.0, 2.0, 3.0, 4.0, 5.0]]]), double([[[0.0, 0.0]]])
    assert common_positions(long, short)[0].tolist() == [[[2.0, 4.0]]]
    assert common_positions(short, long)[1].tolist() == [[[2.0, 4.0]]]


@pytest.mark.parametrize(("sizes", "others"), [((7,), (3,)), ((4, 9), (6, 2)), ((4, 3, 5), (2, 3, 2))])
def test_any_number_of_axes_meets_at_the_smaller_size(sizes, others):
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, *sizes).double(), torch.randn(2, 5, *others).double()
    small = tuple(map(min, sizes, others))
    pool = getattr(torch.nn.functional, f"adaptive_avg_pool{len(sizes)}d")
    for tensor, matched in zip((first, second), common_positions(first, second), strict=True):
        torch.testing.assert_close(matched, pool(tensor, small))


def test_a_map_meets_tokens_along_one_axis():
    image, tokens = torch.arange(8.0).reshape(1, 1, 2, 4), torch.zeros(1, 2, 4)
    matched, _ = common_positions(image, tokens)
    assert matched.tolist() == [[[0.5, 2.5, 4.5, 6.5]]]
