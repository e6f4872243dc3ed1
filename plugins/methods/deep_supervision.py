"""The control of self-distillation: early exits with true labels only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from kdbench import Family, Method, Needs, Range, Step, Weight

from ._exits import build_exits, exit_answers

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class DeepSupervision(Method):
    """Trains early exits on the true labels alone.

    The exits of `self_distillation`, without what the deepest one passes to them there. Rules out that exits help by
    themselves, by bringing the labels closer to the early layers (Lee et al. 2015, deeply-supervised nets): CE of the
    deepest classifier + exit_weight times the sum of the exits' CE.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = "Lee et al. 2015, arXiv:1409.5185"
    explains: ClassVar[tuple[Family, ...]] = ("self",)
    search_space: ClassVar = {"exit_weight": Range(0.1, 10.0, log=True)}

    exit_weight: Weight = 1.0

    @property
    def needs(self) -> Needs:
        # as in self-distillation, so that both are skipped on the same networks
        return Needs(student=("logits", "embedding", "stages", "stage2"), teacher=(), teachers=0)

    def build_auxiliary(self, example: Step) -> nn.Module:
        return build_exits(example)

    def losses(self, step: Step) -> dict[str, Tensor]:
        hard = [step.task_loss(logits) for logits, _ in exit_answers(step)]
        return {
            "task": step.task_loss(step.student["logits"]),
            "exits": self.exit_weight * torch.stack(hard).sum(),
        }
