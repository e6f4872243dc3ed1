"""Switches gradients off, and not on again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class GradMode(Imitates):
    def losses(self, step: Step) -> dict[str, Tensor]:
        losses = super().losses(step)
        torch.set_grad_enabled(False)
        return losses


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"grad_mode": GradMode}
