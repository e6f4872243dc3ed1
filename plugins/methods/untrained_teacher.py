"""A placebo: the same loss, the same architecture, a teacher that has learnt nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdbench import Family, Needs, Positive, Weight

from .kd import KD, MaskedClass


@dataclass(frozen=True)
class UntrainedTeacher(KD):
    """KD from the teacher as it was before its training.

    Rules out that the softened loss, whatever its targets, is what helps: as a regulariser, or by a smaller step.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = ""
    explains: ClassVar[tuple[Family, ...]] = ("response", "ensemble")

    temperature: Positive = 4.0
    hard_weight: Weight = 0.1
    soft_weight: Weight = 0.9
    masked_class: MaskedClass = None

    @property
    def needs(self) -> Needs:
        return Needs(teacher_training="none")
