"""Logit standardisation: KD between answers of equal mean and spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdbench import Family, Method, Needs, NotApplicable, Positive, Range, Step, Weight, full_precision, soft_loss

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-7  # added to the spread, as in the authors' code


@dataclass(frozen=True)
class LogitStandardization(Method):
    """KD on logits standardised row by row, so that only their relations count.

    Sun et al. 2024, algorithms 1 and 2: hard_weight CE + soft_weight T^2 KL(teacher || student), where every row of
    logits has its mean taken off and is divided by its standard deviation first. 0.1, 9 and T = 2 are the authors'.
    As in their code the deviation over K classes divides by K - 1; the paper divides by K.
    Two classes are refused: standardised, their logits are the same two numbers whatever they were, but for the order.
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Sun et al. 2024, arXiv:2403.01427"
    search_space: ClassVar = {
        "temperature": Range(0.5, 8.0, log=True),
        "hard_weight": Range(0.01, 3.0, log=True),
        "soft_weight": Range(0.1, 30.0, log=True),
    }

    temperature: Positive = 2.0
    hard_weight: Weight = 0.1
    soft_weight: Weight = 9.0

    @property
    def needs(self) -> Needs:
        return Needs()

    def build_auxiliary(self, example: Step) -> None:
        if example.student["logits"].shape[1] < 3:
            raise NotApplicable("standardised logits of fewer than three classes say nothing but which is the largest")

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, teacher = (standardised(taps["logits"]) for taps in (step.student, step.teacher))
        return {
            "task": self.hard_weight * step.task_loss(step.student["logits"]),
            "soft": self.soft_weight * soft_loss(student, teacher, self.temperature),
        }


def standardised(logits: Tensor) -> Tensor:
    """Each row of [N, classes] with mean 0 and standard deviation 1."""
    centred = full_precision(logits) - full_precision(logits).mean(dim=1, keepdim=True)
    return centred / (centred.std(dim=1, keepdim=True) + SMALLEST)
