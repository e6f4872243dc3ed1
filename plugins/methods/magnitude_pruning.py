"""A rival of distillation: the teacher itself, with its smallest weights taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from kdbench import Family, Fraction, Method, Needs


@dataclass(frozen=True)
class MagnitudePruning(Method):
    """Prunes the teacher to the student's size, and trains on what is left of it.

    Han et al. 2015, section 3, global and unstructured: the weights that are smallest in absolute value over all layers
    are set to 0 and stay there; biases and norms are kept. Trained after that for the student's epochs at the teacher's
    learning rate, from its start again (learning rate rewinding: Renda et al. 2020, arXiv:2003.02389).
    `sparsity`: the part of the weights that is taken; None: so much that what is left is as many as the student has.
    Zeros cost dense hardware as much as other numbers: MACs and latency stay the teacher's, "nonzero_parameters" falls.
    """

    family: ClassVar[Family] = "compression"
    paper: ClassVar[str] = "Han et al. 2015, arXiv:1506.02626"

    sparsity: Fraction | None = None

    @property
    def needs(self) -> Needs:
        return Needs(teacher=(), student_architecture="teacher")

    def initial_weights(
        self, student: Mapping[str, Tensor], teachers: Sequence[Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        return teachers[0]

    def prepare(self, student: nn.Module, parameters: int) -> None:
        weights = [parameter for parameter in student.parameters() if parameter.ndim > 1]
        flat = torch.cat([weight.detach().flatten() for weight in weights])
        surplus = sum(parameter.numel() for parameter in student.parameters()) - parameters
        taken = round(self.sparsity * len(flat)) if self.sparsity is not None else min(max(surplus, 0), len(flat))
        kept = prune.L1Unstructured(taken).compute_mask(flat, torch.ones_like(flat))
        for weight, mask in zip(weights, kept.split([weight.numel() for weight in weights]), strict=True):
            weight.data.mul_(mask.view_as(weight))
            weight.register_hook(mask.view_as(weight).mul)  # no gradient, so no optimiser moves a pruned weight
