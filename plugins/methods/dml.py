"""Deep mutual learning: students that teach each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from kdbench import Count, Family, Method, Needs, Range, Step, Weight, soft_loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DML(Method):
    """Trains students together, each also on the others' answers; needs no teacher.

    Zhang et al. 2018: each peer learns CE + mutual_weight * the mean over the others of KL(other || itself), without
    temperature; the weight of 1 is the paper's. The others' answers are targets, not pulled along. The paper updates
    the peers in turn, each seeing the newest answers of the others; here all move at once. Both terms are sums over the
    peers, which share no weights, so each learns at the full rate. The first one is measured.
    """

    family: ClassVar[Family] = "online"
    paper: ClassVar[str] = "Zhang et al. 2018, arXiv:1706.00384"
    search_space: ClassVar = {"mutual_weight": Range(0.1, 10.0, log=True)}

    peers: Count = 2
    mutual_weight: Weight = 1.0

    def __post_init__(self) -> None:
        if self.peers < 2:
            raise ValueError(f"peers must be 2 or more, not {self.peers}: a student alone has none")

    @property
    def needs(self) -> Needs:
        return Needs(students=self.peers, teacher=(), teachers=0)

    def losses(self, step: Step) -> dict[str, Tensor]:
        answers = [student["logits"] for student in step.students]
        mutual = [
            soft_loss(own, other.detach(), temperature=1.0)
            for i, own in enumerate(answers)
            for j, other in enumerate(answers)
            if i != j
        ]
        return {
            "task": torch.stack([step.task_loss(own) for own in answers]).sum(),
            "mutual": self.mutual_weight * torch.stack(mutual).sum() / (self.peers - 1),
        }
