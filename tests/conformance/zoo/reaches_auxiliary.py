"""Builds a layer that it does not use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class ReachesAuxiliary(Imitates):
    def build_auxiliary(self, example: Step) -> nn.Module:
        regressor = super().build_auxiliary(example)
        regressor.add_module("spare", nn.Linear(1, 1))
        return regressor


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"reaches_auxiliary": ReachesAuxiliary}
