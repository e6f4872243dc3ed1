"""How closely a student follows its teacher, whatever the truth is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div


def fidelity(student_logits: Tensor, teacher_logits: Tensor) -> dict[str, float]:
    """Agreement with and divergence from the teacher, of logits [N, classes] of a whole split, in float64.

    Returns:
        "agreement": share of examples on which both have the same top label (Stanton et al. 2021).
        "teacher_kl": mean of KL(teacher || student) at temperature 1, in nats.

    Raises:
        ValueError: the two answer different numbers of examples or classes.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"student {tuple(student_logits.shape)} and teacher {tuple(teacher_logits.shape)} differ")
    student = student_logits.detach().to("cpu", torch.float64).log_softmax(dim=1)
    teacher = teacher_logits.detach().to("cpu", torch.float64).log_softmax(dim=1)
    same = student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1).to(student_logits.device)
    return {
        "agreement": same.double().mean().item(),
        "teacher_kl": kl_div(student, teacher, reduction="batchmean", log_target=True).item(),
    }
