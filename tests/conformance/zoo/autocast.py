"""Writes answers, which are bfloat16, into a memory of parameters' precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench import Step, hookimpl

from .sound import Imitates, pooled


class Remembering(nn.Linear):
    """A regressor that keeps the features it saw last."""

    memory: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("memory", torch.zeros(100, inputs))

    def forward(self, features: Tensor) -> Tensor:
        self.memory[torch.arange(len(features))] = features.detach()
        return super().forward(features)


@dataclass(frozen=True)
class Autocast(Imitates):
    def build_auxiliary(self, example: Step) -> nn.Module:
        return Remembering(pooled(example.student).shape[1], pooled(example.teacher).shape[1])


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"autocast": Autocast}
