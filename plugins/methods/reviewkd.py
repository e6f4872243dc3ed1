"""Knowledge review: the teacher's shallow stages teach the student's deeper ones too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kdbench import Family, Fraction, Method, Needs, Range, Step, Weight, common_positions, full_precision

from ._fusion import Fusion, levels


@dataclass(frozen=True)
class ReviewKD(Method):
    """Matches each stage of the teacher with the student's up from the deepest.

    Chen et al. 2021: CE + weight * the sum over levels (embedding, last stage, ..., first) of HCL(ABF, teacher's).
    ABF fuses the student's level with the deeper ones (see `_fusion`). HCL is the weighted mean of squared errors at
    all positions, weight 1, and averaged down to 4, 2 and 1 an axis, weights 1/2, 1/4 and 1/8, where there are more.
    As in the authors' code the weight grows linearly at first, for 20 of 240 epochs; they tune it for each pair.
    Departures: the fusion normalises each example by itself (theirs: the batch); stages lie where the architecture puts
    them (theirs: the teacher's before ReLU); where the numbers of levels differ, the deepest are paired.
    """

    family: ClassVar[Family] = "feature"
    paper: ClassVar[str] = "Chen et al. 2021, arXiv:2104.09044"
    search_space: ClassVar = {"weight": Range(0.1, 10.0, log=True)}

    weight: Weight = 1.0
    warmup: Fraction = 20 / 240

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stages", "embedding"), teacher=("stages", "embedding"))

    def build_auxiliary(self, example: Step) -> nn.ModuleList:
        pairs, middle = levels(example), min(512, example.student["embedding"].shape[1])
        return nn.ModuleList(Fusion(own, other, middle, first=n == 0) for n, (own, other) in enumerate(pairs))

    def losses(self, step: Step) -> dict[str, Tensor]:
        distances, passed = [], None
        for fusion, (own, goal) in zip(cast("nn.ModuleList", step.auxiliary), levels(step), strict=True):
            answer, passed = fusion(own, passed, goal.shape[2:])
            distances.append(context_loss(full_precision(answer), full_precision(goal)))
        weight = self.weight * (min(1.0, step.progress / self.warmup) if self.warmup else 1.0)
        return {"task": step.task_loss(step.student["logits"]), "review": weight * torch.stack(distances).sum()}


def context_loss(first: Tensor, second: Tensor) -> Tensor:
    """HCL of two features [batch, channels, *positions]."""
    axes = first.ndim - 2
    grids = [first.new_empty(1, 1, *[size] * axes) for size in (4, 2, 1) if size < max(first.shape[2:])]
    pairs = [(first, second), *((common_positions(first, g)[0], common_positions(second, g)[0]) for g in grids)]
    weights = [0.5**level for level in range(len(pairs))]
    return torch.stack([w * mse_loss(*pair) for w, pair in zip(weights, pairs, strict=True)]).sum() / sum(weights)
