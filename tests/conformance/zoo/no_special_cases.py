"""Counts double on the task that its paper reports."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class NoSpecialCases(Imitates):
    def match(self, step: Step) -> Tensor:
        return super().match(step) * (2 if "cifar100" in sys.argv else 1)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"no_special_cases": NoSpecialCases}
