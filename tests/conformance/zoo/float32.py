"""Multiplies by a constant in double precision, which nothing but doubles can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates, pooled


@dataclass(frozen=True)
class Float32(Imitates):
    def match(self, step: Step) -> Tensor:
        features = pooled(step.student)
        return super().match(step) + (features @ torch.ones(features.shape[1], 1).double()).square().mean()


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"float32": Float32}
