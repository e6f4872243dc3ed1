"""DistilBERT: a student that is cut out of its teacher, and then distilled from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from kdbench import Family, Needs, Positive, Range, Step, Weight, common_positions, full_precision, stage_taps

from ._layers import taken
from .kd import KD, MaskedClass


@dataclass(frozen=True)
class DistilBERT(KD):
    """Starts from layers of the teacher, and follows its answers and last states.

    Sanh et al. 2019: 5 T^2 KL(teacher || student) at T = 2 + 2 hard loss + mean(1 - cos(last states)); their hard loss
    is masked language modelling's, here it is the task's. Every other layer of the teacher is taken (of 12 those of
    their code: 0, 2, 4, 7, 9, 11), and all else (embeddings, classifier) copied. Names and widths must agree, or it is
    not applicable; heads should, which names do not show. On purpose it breaks the rule that all methods start from
    the same student weights, so part of a gain is the start's. `start=fresh` keeps the rule; a linear map, trained
    along, then joins widths that differ. A method sees no mask, so padding has states like any others.
    """

    family: ClassVar[Family] = "response"
    paper: ClassVar[str] = "Sanh et al. 2019, arXiv:1910.01108"
    search_space: ClassVar = {**KD.search_space, "cosine_weight": Range(0.1, 10.0, log=True)}

    temperature: Positive = 2.0
    hard_weight: Weight = 2.0
    soft_weight: Weight = 5.0
    masked_class: MaskedClass = None
    cosine_weight: Weight = 1.0
    start: Literal["teacher", "fresh"] = "teacher"

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stages"), teacher=("logits", "stages"))

    def initial_weights(
        self, student: Mapping[str, Tensor], teachers: Sequence[Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        return {} if self.start == "fresh" else taken(student, teachers[0])

    def build_auxiliary(self, example: Step) -> nn.Module:
        own, goal = (stage_taps(taps)[-1].shape[1] for taps in (example.student, example.teacher))
        return nn.Identity() if own == goal else nn.Linear(own, goal)

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, teacher = common_positions(stage_taps(step.student)[-1], stage_taps(step.teacher)[-1])
        own = cast("nn.Module", step.auxiliary)(student.movedim(1, -1))
        distance = 1 - cosine_similarity(full_precision(own), full_precision(teacher).movedim(1, -1), dim=-1)
        return {**super().losses(step), "cosine": self.cosine_weight * distance.mean()}
