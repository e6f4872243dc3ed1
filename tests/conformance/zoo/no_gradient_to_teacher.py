"""Makes its teacher learn too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class NoGradientToTeacher(Imitates):
    def match(self, step: Step) -> Tensor:
        step.teacher["stage1"].requires_grad_()
        return super().match(step)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"no_gradient_to_teacher": NoGradientToTeacher}
