"""Takes a square root, whose slope at 0 is infinite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates, pooled


@dataclass(frozen=True)
class FiniteGradients(Imitates):
    def match(self, step: Step) -> Tensor:
        return super().match(step) + pooled(step.student).square().sum(dim=1).sqrt().mean()


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"finite_gradients": FiniteGradients}
