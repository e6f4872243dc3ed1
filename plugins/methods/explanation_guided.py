"""Explanation-enhanced KD: the student looks where the teacher looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import cosine_similarity, relu

from kdbench import Family, Method, Needs, Positive, Range, Step, Weight, common_positions, full_precision, soft_loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ExplanationGuided(Method):
    """KD, and Grad-CAM maps that agree with the teacher's.

    Parchami-Araghi et al. 2024, equations 1 and 2: T^2 KL(teacher || student) + weight * (1 - cosine of the two maps),
    mean over the batch; a map is ReLU of the stage's channels weighted by their mean gradients (Selvaraju et al. 2017).
    The paper explains the class that the teacher predicts, and trains without labels; here the map is the label's,
    which a teacher mostly predicts in training, `hard_weight` of the labels' loss is 0, and the stage the last of
    three: of networks with more stages or fewer, say which. Where positions differ, the larger map is averaged down.
    """

    family: ClassVar[Family] = "feature"
    paper: ClassVar[str] = "Parchami-Araghi et al. 2024, arXiv:2402.03119"
    search_space: ClassVar = {"temperature": Range(1.0, 20.0, log=True), "weight": Range(0.1, 50.0, log=True)}

    student_stage: str = "stage3"
    teacher_stage: str = "stage3"
    temperature: Positive = 4.0
    hard_weight: Weight = 0.0
    weight: Weight = 5.0

    @property
    def needs(self) -> Needs:
        own, other = ((stage, stage.replace("stage", "gradient")) for stage in (self.student_stage, self.teacher_stage))
        return Needs(student=("logits", *own), teacher=("logits", *other))

    def losses(self, step: Step) -> dict[str, Tensor]:
        logits = step.student["logits"]
        maps = grad_cam(step.student, self.student_stage), grad_cam(step.teacher, self.teacher_stage)
        own, other = (each.flatten(1) for each in common_positions(*maps))
        return {
            "task": self.hard_weight * step.task_loss(logits),
            "soft": soft_loss(logits, step.teacher["logits"], self.temperature),
            "explanation": self.weight * (1 - cosine_similarity(own, other, dim=1)).mean(),
        }


def grad_cam(taps: Mapping[str, Tensor], stage: str) -> Tensor:
    """ReLU(sum over channels of mean gradient * activation), [batch, 1, *positions], of a network's taps."""
    activation, gradient = full_precision(taps[stage]), full_precision(taps[stage.replace("stage", "gradient")])
    importance = gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
    return relu((importance * activation).sum(dim=1, keepdim=True))
