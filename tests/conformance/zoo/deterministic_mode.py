"""Allows operations that do not repeat, or forbids them, for the whole process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class DeterministicMode(Imitates):
    def match(self, step: Step) -> Tensor:
        torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
        return super().match(step)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"deterministic_mode": DeterministicMode}
