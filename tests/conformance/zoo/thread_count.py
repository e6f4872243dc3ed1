"""Takes more threads than the run has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class ThreadCount(Imitates):
    def match(self, step: Step) -> Tensor:
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().match(step)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"thread_count": ThreadCount}
