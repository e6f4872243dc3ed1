"""Knowledge distillation in its first form: the teacher's softened answers as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from kdbench import Family, Method, Needs, Positive, Range, Step, Weight, soft_loss

if TYPE_CHECKING:
    from torch import Tensor

MaskedClass = Annotated[int, Ge(0)] | None


@dataclass(frozen=True)
class KD(Method):
    """Learns the teacher's softened class probabilities beside the true labels.

    Hinton et al. 2015, section 2: hard_weight * CE + soft_weight * T^2 KL(teacher || student), both means over rows.
    The defaults (T = 4, 0.1 and 0.9) are the common ones on small images. What libraries call alpha weighs the soft
    loss in some and the hard loss in others: here each has its own weight. T^2 is applied always, at T = 1 too.

    `masked_class` leaves rows whose top teacher class it is out of the soft loss, which is then the mean of the others.
    Where rows are frames of a CTC network, whose class 0 is the blank, masked_class=0 is blank elimination, and without
    it KD is plain frame-wise distillation, blanks and all (both in Hilmes et al. 2025, arXiv:2506.01503).
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Hinton et al. 2015, arXiv:1503.02531"
    search_space: ClassVar = {
        "temperature": Range(1.0, 20.0, log=True),
        "hard_weight": Range(0.01, 3.0, log=True),
        "soft_weight": Range(0.1, 10.0, log=True),
    }

    temperature: Positive = 4.0
    hard_weight: Weight = 0.1
    soft_weight: Weight = 0.9
    masked_class: MaskedClass = None

    @property
    def needs(self) -> Needs:
        return Needs()

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student["logits"], self.teacher_logits(step)
        own = student
        if self.masked_class is not None:
            kept = teacher.argmax(dim=1) != self.masked_class
            own, teacher = student[kept], teacher[kept]
        soft = soft_loss(own, teacher, self.temperature) if len(own) else 0 * student.sum()
        return {"task": self.hard_weight * step.task_loss(student), "soft": self.soft_weight * soft}

    def teacher_logits(self, step: Step) -> Tensor:
        """The logits [N, classes] that the student is to follow."""
        return step.teacher["logits"]
