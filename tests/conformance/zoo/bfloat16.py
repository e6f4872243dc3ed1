"""Brings one of two factors to full precision, and leaves the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import Step, full_precision, hookimpl

from .sound import Imitates, pooled


@dataclass(frozen=True)
class Bfloat16(Imitates):
    def match(self, step: Step) -> Tensor:
        student, teacher = self.regressed(step), pooled(step.teacher)
        return super().match(step) - (student @ full_precision(teacher).T).diagonal().mean()


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"bfloat16": Bfloat16}
