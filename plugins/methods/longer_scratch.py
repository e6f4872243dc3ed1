"""The control of compute: the student alone, for as much computation as distillation takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdbench import Family, Method, Needs, Positive


@dataclass(frozen=True)
class LongerScratch(Method):
    """Trains on the true labels alone, for as many FLOPs as KD would cost.

    KD pays the teacher's forward pass at every step; here the same FLOPs buy more epochs, rounded up, over which the
    learning rate's schedule is stretched. The teacher's own training is not counted. Rules out that the compute spent
    on asking the teacher would have bought as much without it. `times`: so many times the recipe's epochs instead, for
    suites that cannot wait; then less compute is ruled out than distillation took.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = ""
    explains: ClassVar[tuple[Family, ...]] = ("response", "feature", "relation", "online", "self", "ensemble")

    times: Positive | None = None

    @property
    def needs(self) -> Needs:
        return Needs(teacher=(), teachers=0, budget=self.times or "distillation")
