"""Regresses by a convolution over two axes, where text and speech have one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class OnePositionAxis(Imitates):
    def build_auxiliary(self, example: Step) -> nn.Module:
        return nn.Conv2d(example.student["stage1"].shape[1], example.teacher["stage1"].shape[1], kernel_size=1)

    def regressed(self, step: Step) -> Tensor:
        assert step.auxiliary is not None
        regressed: Tensor = step.auxiliary(step.student["stage1"])
        return regressed.flatten(2).mean(2)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"one_position_axis": OnePositionAxis}
