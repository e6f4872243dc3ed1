"""Relational knowledge distillation: how the examples of a batch lie to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import smooth_l1_loss

from kdbench import Family, Method, Needs, Range, Step, Weight, full_precision

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RKD(Method):
    """Matches the distances and angles between the examples of a batch.

    Park et al. 2019, section 3.2: CE + distance_weight RKD-D + angle_weight RKD-A (25 and 50, the authors'), smooth L1
    on the pooled embeddings; distances are divided by the mean of the non-zero ones. As in the authors' code the means
    run over all pairs and triplets, those of an example with itself included: the terms depend on the batch size.
    """

    family: ClassVar[Family] = "relation"
    paper: ClassVar[str] = "Park et al. 2019, arXiv:1904.05068"
    search_space: ClassVar = {
        "distance_weight": Range(0.1, 100.0, log=True),
        "angle_weight": Range(0.1, 200.0, log=True),
    }
    batch_coupled: ClassVar[bool] = True

    distance_weight: Weight = 25.0
    angle_weight: Weight = 50.0

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "embedding"), teacher=("embedding",))

    def losses(self, step: Step) -> dict[str, Tensor]:
        student_distances, student_angles = relations(step.student["embedding"])
        teacher_distances, teacher_angles = relations(step.teacher["embedding"])
        return {
            "task": step.task_loss(step.student["logits"]),
            "distance": self.distance_weight * smooth_l1_loss(student_distances, teacher_distances),
            "angle": self.angle_weight * smooth_l1_loss(student_angles, teacher_angles),
        }


def relations(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised distances [batch, batch] and cosines [i, j, k] of the angles j-i-k of embeddings [batch, features]."""
    differences = full_precision(embedding)[None] - full_precision(embedding)[:, None]
    lengths = torch.linalg.vector_norm(differences, dim=2)  # its gradient at coinciding examples is 0, not NaN
    mean = lengths.sum() / (lengths > 0).sum().clamp(min=1)
    directions = differences / torch.where(lengths > 0, lengths, 1)[..., None]
    return lengths / torch.where(mean > 0, mean, 1), directions @ directions.transpose(1, 2)
