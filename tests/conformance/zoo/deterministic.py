"""Draws from a generator of its own, which nobody seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class Deterministic(Imitates):
    def match(self, step: Step) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        noise = torch.rand((), generator=generator)
        return (1 + noise) * super().match(step)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"deterministic": Deterministic}
