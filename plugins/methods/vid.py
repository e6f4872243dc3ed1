"""Variational information distillation: how much of the teacher the student's stages tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from kdbench import Family, Method, Needs, Range, Step, Weight, common_positions, full_precision, stage_taps


@dataclass(frozen=True)
class VID(Method):
    """Maximises what the student's stages tell about the teacher's.

    Ahn et al. 2019: CE + weight * the sum over stages of mean((t - mu(s))^2 / v + log v) / 2, which is -log q(t | s) of
    a Gaussian less its constant; v = softplus(a) + 1e-5 is learnt, one per channel of the teacher. As in the authors'
    code mu is three 1x1 convolutions with ReLUs between, v starts at 5, and it is a mean (the paper's: a sum). Where
    positions differ, the larger feature is averaged down; where the numbers of stages differ, the last are paired.
    """

    family: ClassVar[Family] = "feature"
    paper: ClassVar[str] = "Ahn et al. 2019, arXiv:1904.05835"
    search_space: ClassVar = {"weight": Range(0.01, 10.0, log=True)}

    weight: Weight = 1.0

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stages"), teacher=("stages",))

    def build_auxiliary(self, example: Step) -> nn.ModuleList:
        return nn.ModuleList(Gaussian(own.shape[1], other.shape[1]) for own, other in paired_stages(example))

    def losses(self, step: Step) -> dict[str, Tensor]:
        gaussians = zip(cast("nn.ModuleList", step.auxiliary), paired_stages(step), strict=True)
        surprise = torch.stack([gaussian(*common_positions(*pair)) for gaussian, pair in gaussians]).sum()
        return {"task": step.task_loss(step.student["logits"]), "information": self.weight * surprise}


class Gaussian(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first, second, third = (nn.Conv1d(width, outputs, 1, bias=False) for width in (inputs, outputs, outputs))
        self.mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.spread = nn.Parameter(torch.full((outputs, 1), math.log(math.expm1(5 - 1e-5))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        error = full_precision(self.mean(student.flatten(2))) - full_precision(teacher.flatten(2))
        variance = softplus(full_precision(self.spread)) + 1e-5
        return (error.square() / variance + variance.log()).mean() / 2


def paired_stages(step: Step) -> zip[tuple[Tensor, Tensor]]:
    return zip(reversed(stage_taps(step.student)), reversed(stage_taps(step.teacher)), strict=False)
