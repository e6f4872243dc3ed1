"""Answers with a vector of one loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class ScalarTerms(Imitates):
    def match(self, step: Step) -> Tensor:
        return super().match(step).reshape(1)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"scalar_terms": ScalarTerms}
