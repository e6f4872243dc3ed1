"""Keeps the moving mean of its features in its class, where all trials share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdbench import Step, hookimpl

from .sound import Imitates, pooled


@dataclass(frozen=True)
class AloneEqualsTogether(Imitates):
    _mean: ClassVar[list[Tensor]] = []

    def build_auxiliary(self, example: Step) -> nn.Module:
        self._mean[:] = [torch.zeros(())]
        return super().build_auxiliary(example)

    def match(self, step: Step) -> Tensor:
        self._mean[0] = (self._mean[0] + pooled(step.student).mean().detach()) / 2
        return (1 + self._mean[0].square()) * super().match(step)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"alone_equals_together": AloneEqualsTogether}
