"""Similarity-preserving KD: which examples of a batch excite the same neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import mse_loss, normalize

from kdbench import Family, Method, Needs, Range, Step, Weight, full_precision

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SP(Method):
    """Matches how similar a batch's examples are to each other, at one stage.

    Tung & Mori 2019, section 3: CE + weight / batch^2 * ||G_t - G_s||^2 (Frobenius), G the products of all pairs
    of whole features, each row then of length 1. The authors' weight of 3000 is for the last stage of three, the
    default here; of networks with more stages or fewer, say which. Positions and channels may differ.
    The term depends on the batch size; a batch of one has no similarity to match.
    """

    family: ClassVar[Family] = "relation"
    paper: ClassVar[str] = "Tung & Mori 2019, arXiv:1907.09682"
    search_space: ClassVar = {"weight": Range(1.0, 10000.0, log=True)}
    batch_coupled: ClassVar[bool] = True

    student_stage: str = "stage3"
    teacher_stage: str = "stage3"
    weight: Weight = 3000.0

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", self.student_stage), teacher=(self.teacher_stage,))

    def losses(self, step: Step) -> dict[str, Tensor]:
        student = similarities(step.student[self.student_stage])
        teacher = similarities(step.teacher[self.teacher_stage])
        return {
            "task": step.task_loss(step.student["logits"]),
            "similarity": self.weight * mse_loss(student, teacher),
        }


def similarities(feature: Tensor) -> Tensor:
    """Products of all pairs of features [batch, channels, *positions], [batch, batch] with rows of length 1."""
    flat = full_precision(feature).flatten(1)
    return normalize(flat @ flat.T, dim=1)
