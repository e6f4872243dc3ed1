"""How closely a student follows its teacher, whatever the truth is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div


def fidelity(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None) -> dict[str, float]:
    """Agreement with and divergence from the teacher, of logits [N, classes] of a whole split, in float64.

    `labels` [N], where rows have one, split both by whether the teacher is right: a student that learnt what the
    teacher knows follows it there, one that imitates it follows it into its mistakes too.

    Returns:
        "agreement": share of examples on which both have the same top label (Stanton et al. 2021).
        "teacher_kl": mean of KL(teacher || student) at temperature 1, in nats.
        Both with "_teacher_right" and "_teacher_wrong" after them: the same of those examples alone; absent where
        there are none.

    Raises:
        ValueError: the two answer different numbers of examples or classes.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"student {tuple(student_logits.shape)} and teacher {tuple(teacher_logits.shape)} differ")
    student = student_logits.detach().to("cpu", torch.float64)
    teacher = teacher_logits.detach().to("cpu", torch.float64)
    found = _followed(student, teacher)
    if labels is None:
        return found
    right = teacher.argmax(dim=1) == labels.detach().to("cpu", torch.long)
    for name, rows in {"teacher_right": right, "teacher_wrong": ~right}.items():
        if rows.any():
            part = _followed(student[rows], teacher[rows])
            found |= {f"{measure}_{name}": value for measure, value in part.items()}
    return found


def _followed(student: Tensor, teacher: Tensor) -> dict[str, float]:
    same = student.argmax(dim=1) == teacher.argmax(dim=1)
    divergence = kl_div(student.log_softmax(dim=1), teacher.log_softmax(dim=1), reduction="batchmean", log_target=True)
    return {"agreement": same.double().mean().item(), "teacher_kl": divergence.item()}
