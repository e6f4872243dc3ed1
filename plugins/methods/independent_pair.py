"""The control of mutual learning: students trained side by side without a word between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from kdbench import Count, Family, Method, Needs, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class IndependentPair(Method):
    """Trains students side by side, each on the true labels only.

    What `dml` does, with the same budget, less the coupling. Rules out that anything but the coupling is at work in
    mutual learning. The first one is measured.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = ""
    explains: ClassVar[tuple[Family, ...]] = ("online",)

    peers: Count = 2

    @property
    def needs(self) -> Needs:
        return Needs(students=self.peers, teacher=(), teachers=0)

    def losses(self, step: Step) -> dict[str, Tensor]:
        return {"task": torch.stack([step.task_loss(student["logits"]) for student in step.students]).sum()}
