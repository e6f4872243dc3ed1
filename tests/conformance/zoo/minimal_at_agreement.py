"""Softens the student's answers alone, so that no student agrees with its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import hookimpl, soft_loss

from .sound import Softens


@dataclass(frozen=True)
class MinimalAtAgreement(Softens):
    def soft(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_loss(student / 2, teacher, self.temperature)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"minimal_at_agreement": MinimalAtAgreement}
