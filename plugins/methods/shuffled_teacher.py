"""A placebo: a trained teacher's answers, given to the wrong examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from kdbench import Family, Positive, Step, Weight

from .kd import KD, MaskedClass

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ShuffledTeacher(KD):
    """KD in which every example follows the teacher's answer to another one.

    The answers are exchanged among the rows of a batch, anew at each step. The soft targets have the temperature,
    the confidence and the mix of classes that they have in KD, and say nothing about the example at hand. Rules out
    that softened targets as such, whatever they say, are what helps.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = ""
    explains: ClassVar[tuple[Family, ...]] = ("response", "ensemble")
    without_dark_knowledge: ClassVar[bool] = True
    batch_coupled: ClassVar[bool] = True

    temperature: Positive = 4.0
    hard_weight: Weight = 0.1
    soft_weight: Weight = 0.9
    masked_class: MaskedClass = None

    def teacher_logits(self, step: Step) -> Tensor:
        logits = step.teacher["logits"]
        order = torch.randperm(len(logits), device=logits.device)
        following = order.roll(1)  # along one cycle through all rows: none meets its own answer
        return logits[torch.empty_like(order).scatter_(0, order, following)]
