"""Knowledge distillation in its first form: the teacher's softened answers as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdbench import Family, Method, Needs, Positive, Step, Weight, soft_loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class KD(Method):
    """Learns the teacher's softened class probabilities beside the true labels.

    Hinton et al. 2015, section 2: hard_weight * CE + soft_weight * T^2 KL(teacher || student), both means over rows.
    The defaults (T = 4, 0.1 and 0.9) are the common ones on small images. What libraries call alpha weighs the soft
    loss in some and the hard loss in others: here each has its own weight. T^2 is applied always, at T = 1 too.
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: Positive = 4.0
    hard_weight: Weight = 0.1
    soft_weight: Weight = 0.9

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, step: Step) -> dict[str, Tensor]:
        logits = step.student["logits"]
        return {
            "task": self.hard_weight * step.task_loss(logits),
            "soft": self.soft_weight * soft_loss(logits, self.teacher_logits(step), self.temperature),
        }

    def teacher_logits(self, step: Step) -> Tensor:
        """The logits [N, classes] that the student is to follow."""
        return step.teacher["logits"]
