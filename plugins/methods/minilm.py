"""MiniLM: how the positions of one input attend to each other in the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdbench import Count, Family, Method, Needs, NotApplicable, Range, Step, Weight, full_precision, soft_loss

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("query", "key", "value")


@dataclass(frozen=True)
class MiniLM(Method):
    """Matches how queries, keys and values of one layer relate among themselves.

    Wang et al. 2021 (MiniLMv2): the sum over the three kinds of KL(R_t || R_s), mean over relation heads and positions;
    R = softmax(A A^T / sqrt(d)), where A holds the vectors of all heads, cut anew into relation_heads of width d.
    The paper has 48 at width 768 and learns from relations alone, before fine-tuning; here there are 4, beside CE.
    Which layers: the defaults are the last of 2 and of 4; of a large teacher, an upper middle one. Padding counts too.
    """

    family: ClassVar[Family] = "relation"
    paper: ClassVar[str] = "Wang et al. 2021, arXiv:2012.15828"
    search_space: ClassVar = {"relation_weight": Range(0.1, 10.0, log=True)}

    student_layer: Count = 2
    teacher_layer: Count = 4
    relation_heads: Count = 4
    relation_weight: Weight = 1.0

    @property
    def needs(self) -> Needs:
        student, teacher = ([f"{kind}{n}" for kind in KINDS] for n in (self.student_layer, self.teacher_layer))
        return Needs(student=("logits", *student), teacher=tuple(teacher))

    def build_auxiliary(self, example: Step) -> None:
        student, teacher = example.student[f"key{self.student_layer}"], example.teacher[f"key{self.teacher_layer}"]
        if odd := [width for width in (student.shape[1], teacher.shape[1]) if width % self.relation_heads]:
            raise NotApplicable(f"{odd[0]} channels cannot be cut into {self.relation_heads} relation heads")
        if student.shape[2:] != teacher.shape[2:]:
            raise NotApplicable("the layers of teacher and student have other positions")

    def losses(self, step: Step) -> dict[str, Tensor]:
        losses = {"task": step.task_loss(step.student["logits"])}
        for kind in KINDS:
            student = self.relations(step.student[f"{kind}{self.student_layer}"])
            teacher = self.relations(step.teacher[f"{kind}{self.teacher_layer}"])
            losses[kind] = self.relation_weight * soft_loss(student, teacher, temperature=1.0)
        return losses

    def relations(self, vectors: Tensor) -> Tensor:
        """Relation logits [batch * heads * positions, positions] of vectors [batch, channels, *positions]."""
        heads = full_precision(vectors).flatten(2).unflatten(1, (self.relation_heads, -1))
        return (heads.transpose(2, 3) @ heads / math.sqrt(heads.shape[2])).flatten(0, 2)
