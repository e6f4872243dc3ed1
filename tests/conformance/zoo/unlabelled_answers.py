"""Counts the labels of answers that have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class UnlabelledAnswers(Imitates):
    def match(self, step: Step) -> Tensor:
        return super().match(step) / len(step.labels.unique().clamp(max=0).unique())


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"unlabelled_answers": UnlabelledAnswers}
