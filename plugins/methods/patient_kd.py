"""Patient knowledge distillation: the teacher's way to its answer, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

from kdbench import Family, Needs, Positive, Range, Step, Weight, full_precision, stage_taps

from .kd import KD, MaskedClass


@dataclass(frozen=True)
class PatientKD(KD):
    """Follows the teacher's states at regular depths, beside its answers.

    Sun et al. 2019 (PKD-skip): KD + patience_weight * mean((state_s - state_t)^2), states scaled to length 1; stage i
    of the student against i * (teacher's stages // student's) of the teacher. Like the authors' code it is a mean over
    channels too (the paper sums). Defaults are that code's: T = 10, 0.3 and 0.7, and 500, for 768 channels; the paper
    searches them per task. Departures: a state is the mean over positions (the paper's: the first token), the last
    stage is matched too, and where widths differ a linear map, trained along, goes from the student's to the teacher's.
    """

    family: ClassVar[Family] = "feature"
    paper: ClassVar[str] = "Sun et al. 2019, arXiv:1908.09355"
    search_space: ClassVar = {**KD.search_space, "patience_weight": Range(1.0, 3000.0, log=True)}

    temperature: Positive = 10.0
    hard_weight: Weight = 0.3
    soft_weight: Weight = 0.7
    masked_class: MaskedClass = None
    patience_weight: Weight = 500.0

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stages"), teacher=("logits", "stages"))

    def build_auxiliary(self, example: Step) -> nn.ModuleList:
        widths = [(student.shape[1], teacher.shape[1]) for student, teacher in matched(example)]
        return nn.ModuleList(nn.Identity() if own == other else nn.Linear(own, other) for own, other in widths)

    def losses(self, step: Step) -> dict[str, Tensor]:
        distances = []
        for projection, (student, teacher) in zip(cast("nn.ModuleList", step.auxiliary), matched(step), strict=True):
            own, goal = full_precision(projection(student)), full_precision(teacher)
            distances.append(mse_loss(normalize(own, dim=1), normalize(goal, dim=1)))
        return {**super().losses(step), "patience": self.patience_weight * torch.stack(distances).mean()}


def matched(step: Step) -> list[tuple[Tensor, Tensor]]:
    """The states [batch, channels] of the student's stages, each with the teacher's at the same share of its depth."""
    student, teacher = ([stage.flatten(2).mean(2) for stage in stage_taps(net)] for net in (step.student, step.teacher))
    skip = max(1, len(teacher) // len(student))
    return list(zip(student, teacher[skip - 1 :: skip], strict=False))
