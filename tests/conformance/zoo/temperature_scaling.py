"""Softens without T^2, and so learns next to nothing at high temperatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import hookimpl

from .sound import Softens


@dataclass(frozen=True)
class TemperatureScaling(Softens):
    def soft(self, student: Tensor, teacher: Tensor) -> Tensor:
        return super().soft(student, teacher) / self.temperature**2


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"temperature_scaling": TemperatureScaling}
