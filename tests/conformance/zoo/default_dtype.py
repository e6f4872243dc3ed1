"""Makes double the default of every tensor that is made after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class DefaultDtype(Imitates):
    def match(self, step: Step) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return super().match(step)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"default_dtype": DefaultDtype}
