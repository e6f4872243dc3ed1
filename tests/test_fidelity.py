"""Fidelity split by whether the teacher is right, and the calibration curve: against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdbench.measuring.calibration import calibration, calibration_curve
from kdbench.measuring.fidelity import fidelity

STUDENT = torch.tensor([[2.0, -1.0, 0.3], [0.1, 0.2, 0.0], [-3.0, 1.0, 4.0], [1.5, 1.0, -2.0], [0.0, 3.0, 2.5]])
TEACHER = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 5.0], [-1.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.5, 0.6, 0.4]])
LABELS = torch.tensor([0, 2, 1, 0, 1])  # the teacher is right on the first two and the last


def divergences() -> np.ndarray:
    student, teacher = (np.exp(each.numpy().astype(np.float64)) for each in (STUDENT, TEACHER))
    student, teacher = (each / each.sum(axis=1, keepdims=True) for each in (student, teacher))
    return (teacher * np.log(teacher / student)).sum(axis=1)


def test_fidelity_is_split_by_whether_the_teacher_is_right():
    found = fidelity(STUDENT, TEACHER, LABELS)
    kl = divergences()
    assert found["agreement_teacher_right"] == pytest.approx(2 / 3, rel=1e-12)  # the first and the last
    assert found["agreement_teacher_wrong"] == pytest.approx(1 / 2, rel=1e-12)  # the third
    assert found["teacher_kl_teacher_right"] == pytest.approx(kl[[0, 1, 4]].mean(), rel=1e-12)
    assert found["teacher_kl_teacher_wrong"] == pytest.approx(kl[[2, 3]].mean(), rel=1e-12)
    assert found["teacher_kl"] == pytest.approx(kl.mean(), rel=1e-12)
    assert fidelity(STUDENT, TEACHER) == {name: found[name] for name in ("agreement", "teacher_kl")}


@pytest.mark.parametrize(("labels", "absent"), [(TEACHER.argmax(1), "wrong"), (TEACHER.argmin(1), "right")])
def test_a_group_without_examples_is_absent(labels: torch.Tensor, absent: str):
    found = fidelity(STUDENT, TEACHER, labels)
    assert not [name for name in found if name.endswith(absent)]
    assert len(found) == 4


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (23, 4), elements=st.floats(-20, 20, width=32)),
    arrays(np.int64, 23, elements=st.integers(0, 3)),
)
def test_the_calibration_error_follows_from_the_curve(logits: np.ndarray, targets: np.ndarray):
    found = calibration_curve(torch.from_numpy(logits), torch.from_numpy(targets))
    share, accuracy, confidence = (np.array(found[name]) for name in ("share", "accuracy", "confidence"))
    error = (share * np.abs(accuracy - confidence)).sum()
    assert error == pytest.approx(calibration(torch.from_numpy(logits), torch.from_numpy(targets))["ece"], abs=1e-12)
    assert share.sum() == pytest.approx(1, rel=1e-12)
    assert (share > 0).all()
    assert (np.diff(confidence) > 0).all()


def test_a_calibration_curve_by_hand():
    logits = torch.tensor([[0.9, 0.1], [0.92, 0.08], [0.55, 0.45], [0.0, 1.0]], dtype=torch.float64).log()
    found = calibration_curve(logits, torch.tensor([0, 1, 0, 1]))
    assert found["confidence"] == pytest.approx([0.55, 0.91, 1.0], rel=1e-12)
    assert found["accuracy"] == [1.0, 0.5, 1.0]
    assert found["share"] == [0.25, 0.5, 0.25]
