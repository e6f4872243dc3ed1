"""Attention transfer: where the teacher looks, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import mse_loss, normalize

from kdbench import Family, Method, Needs, Range, Step, Weight, common_positions, full_precision, stage_taps

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AttentionTransfer(Method):
    """Matches where teacher and student respond, at every stage.

    Zagoruyko & Komodakis 2017, activation-based: CE + weight * sum over stages of mean((A_s - A_t)^2), where A is the
    mean over channels of the squared feature, as a vector over positions of length 1. This is the authors' code; the
    paper's equation 2 takes beta / 2 times the norm of A_s - A_t instead, so its beta is not this weight. Where the
    positions differ, the larger feature is averaged down; where the numbers of stages differ, the last ones are paired.
    """

    family: ClassVar[Family] = "feature"
    paper: ClassVar[str] = "Zagoruyko & Komodakis 2017, arXiv:1612.03928"
    search_space: ClassVar = {"weight": Range(1.0, 3000.0, log=True)}

    weight: Weight = 1000.0

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stages"), teacher=("stages",))

    def losses(self, step: Step) -> dict[str, Tensor]:
        pairs = zip(reversed(stage_taps(step.student)), reversed(stage_taps(step.teacher)), strict=False)
        distances = [self.distance(*common_positions(student, teacher)) for student, teacher in pairs]
        return {
            "task": step.task_loss(step.student["logits"]),
            "attention": self.weight * torch.stack(distances).sum(),
        }

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean squared difference of the attention maps of two features at the same positions."""
        return mse_loss(attention_map(student), attention_map(teacher))


def attention_map(feature: Tensor) -> Tensor:
    """How strongly each position responds: [batch, channels, *positions] to unit vectors [batch, all positions]."""
    strength = full_precision(feature).square().mean(1)
    return normalize(strength.reshape(feature.shape[0], -1), dim=1)
