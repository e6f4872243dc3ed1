"""DKD against Zhao et al. 2022, section 3, one row and one class at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kdbench import NotApplicable, soft_loss
from kdbench.testing import check_method, example_step
from kdbench_plugins.methods.dkd import DKD


def softened(row, temperature):
    powers = [math.exp(logit / temperature) for logit in row]
    return [power / sum(powers) for power in powers]


def divergence(teacher, student):
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))


def of_the_row(student, teacher, label, temperature):
    """TCKD and NCKD of one example."""
    q, p = softened(student, temperature), softened(teacher, temperature)
    target = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
    others = [index for index in range(len(p)) if index != label]
    rest = divergence([p[i] / (1 - p[label]) for i in others], [q[i] / (1 - q[label]) for i in others])
    return target, rest


def rows(step):
    student, teacher = step.student["logits"].tolist(), step.teacher["logits"].tolist()
    return zip(student, teacher, step.labels.tolist(), strict=True)


def example(method=None, **settings):
    return replace(example_step(method or DKD(), dtype=torch.float64, **settings), progress=0.5)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 30.0])
@pytest.mark.parametrize("answers", [1, 3])
def test_both_terms_are_the_equation(temperature, answers):
    method = DKD(temperature=temperature, target_weight=0.7, other_weight=3.0)
    step = example(method, answers=answers)
    parts = [of_the_row(*row, temperature) for row in rows(step)]
    losses = method.losses(step)
    scale = temperature**2 / len(parts)
    assert losses["target"].item() == pytest.approx(0.7 * scale * sum(target for target, _ in parts), rel=1e-9)
    assert losses["others"].item() == pytest.approx(3.0 * scale * sum(rest for _, rest in parts), rel=1e-9)
    assert losses["task"].equal(step.task_loss(step.student["logits"]))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_target_term_and_the_others_weighted_by_what_the_teacher_leaves_them(temperature):
    method = DKD(temperature=temperature, target_weight=1.0, other_weight=1.0)
    step = example(method, batch=1)
    student, teacher = step.student["logits"], step.teacher["logits"]
    left = 1 - (teacher / temperature).softmax(dim=1)[0, step.labels[0]]
    losses = method.losses(step)
    coupled = losses["target"] + left * losses["others"]
    assert coupled.item() == pytest.approx(soft_loss(student, teacher, temperature).item(), rel=1e-9)


def test_both_terms_vanish_with_their_gradient_where_the_student_is_the_teacher():
    step = example()
    copy = step.teacher["logits"].clone().requires_grad_()
    losses = DKD().losses(replace(step, students=[{"logits": copy}]))
    (losses["target"] + losses["others"]).backward()
    assert losses["target"].item() == losses["others"].item() == 0
    assert copy.grad.abs().max() < 1e-14


def test_the_others_do_not_see_the_logit_of_the_true_class():
    step = example()
    losses = DKD().losses(step)
    losses["others"].backward()
    own = step.student["logits"].grad.gather(1, step.labels[:, None])
    assert own.abs().max() == 0
    assert step.student["logits"].grad.abs().max() > 0


def test_the_soft_terms_grow_over_the_warm_up():
    method, step = DKD(warmup=0.2), example()
    full = method.losses(step)
    for progress, share in [(0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (1.0, 1.0)]:
        losses = method.losses(replace(step, progress=progress))
        assert losses["task"].equal(full["task"])
        for term in ("target", "others"):
            assert losses[term].item() == pytest.approx(share * full[term].item(), rel=1e-12)
    assert DKD(warmup=0.0).losses(replace(step, progress=0.0))["target"].equal(full["target"])


def test_of_two_classes_there_are_no_others_to_compare():
    losses = DKD().losses(example(classes=2))
    assert losses["others"].item() == 0
    assert losses["target"].item() > 0


def test_a_very_sure_teacher_gives_finite_gradients():
    step = example_step(DKD(), dtype=torch.float32)
    sure = 1000 * torch.nn.functional.one_hot(step.labels, 5).float()
    losses = DKD().losses(replace(step, teachers=[{"logits": sure}], progress=1.0))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert step.student["logits"].grad.isfinite().all()


def test_rows_without_a_class_are_refused():
    with pytest.raises(NotApplicable, match="true class"):
        DKD().build_auxiliary(replace(example(), labels=None))


def test_without_warm_up_it_keeps_the_contract():
    check_method(DKD(warmup=0.0))
