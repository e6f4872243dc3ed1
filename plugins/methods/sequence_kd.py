"""Sequence-level distillation: the teacher's own translations as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdbench import Family, Fraction, Method, Needs, Range, Step, soft_loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SequenceKD(Method):
    """Trains on what the teacher's search finds, in place of the data's targets.

    Kim and Rush 2016, section 3.2: (1 - word_weight) * CE + word_weight * KL(teacher || student), both means over the
    tokens of the teacher's answer; the KL is word-level distillation (section 3.1), which the paper combines with it.
    By default the answer alone teaches. How the teacher searches is the task's choice (multi30k[teacher_beam=5]); the
    paper's interpolation, which searches for the answer nearest to the data's, is not here. Tasks whose answers are not
    decoded have no such targets: there it is skipped.
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Kim and Rush 2016, arXiv:1606.07947"
    controls: ClassVar[tuple[str, ...] | None] = ("label_smoothing", "longer_scratch")
    search_space: ClassVar = {"word_weight": Range(0.0, 1.0)}

    word_weight: Fraction = 0.0

    @property
    def needs(self) -> Needs:
        return Needs(teacher=("logits",) if self.word_weight else (), targets="teacher")

    def losses(self, step: Step) -> dict[str, Tensor]:
        logits = step.student["logits"]
        losses = {"task": (1 - self.word_weight) * step.task_loss(logits)}
        if self.word_weight:
            losses["word"] = self.word_weight * soft_loss(logits, step.teacher["logits"], temperature=1.0)
        return losses
