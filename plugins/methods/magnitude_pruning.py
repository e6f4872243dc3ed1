"""A rival of distillation: the teacher itself, with its smallest weights taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils import prune

from kdbench import Family, Fraction, Method, Needs


@dataclass(frozen=True)
class MagnitudePruning(Method):
    """Prunes the teacher to the student's size, and trains on what is left of it.

    Han et al. 2015, global and unstructured: the weights that are smallest in absolute value over all layers are set to
    0 and stay there; all else is kept. Trained after that for the student's epochs at the teacher's learning rate, from
    its start again (learning rate rewinding: Renda et al. 2020, arXiv:2003.02389).
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
        pruned = [(module, "weight") for module in _layers(student)]
        weights = sum(module.weight.numel() for module, _ in pruned)  # type: ignore[operator, misc]
        surplus = sum(parameter.numel() for parameter in student.parameters()) - parameters
        taken = round(self.sparsity * weights) if self.sparsity is not None else min(max(surplus, 0), weights)
        prune.global_unstructured(pruned, pruning_method=prune.L1Unstructured, amount=taken)

    def deploy(self, student: nn.Module) -> None:
        for module in _layers(student):
            if prune.is_pruned(module):
                prune.remove(module, "weight")


def _layers(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)]
