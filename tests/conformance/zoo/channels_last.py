"""Flattens features by .view, which takes one memory layout only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class ChannelsLast(Imitates):
    def match(self, step: Step) -> Tensor:
        flat = step.student["stage1"].view(len(step.indices), -1)
        return super().match(step) + flat.mean().square()


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"channels_last": ChannelsLast}
