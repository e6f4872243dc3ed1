"""Born-again networks: a student taught by an equal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from kdbench import Count, Family, Needs, Positive, Weight

from .kd import KD, MaskedClass


@dataclass(frozen=True)
class BornAgain(KD):
    """Learns from an already trained network of its own architecture.

    Furlanello et al. 2018, section 3, with labels ("BAN+L"): CE + KL(teacher || student), untempered and unweighted.
    In generation 1 the teacher was trained on hard labels, in generation k it is the student of generation k - 1.
    Popular ports soften with T up to 20 and weigh the terms like KD; the paper's T = 1 and weights of 1 are kept here.
    `hard_weight=0` is the paper's other variant, which sees no labels.
    """

    family: ClassVar[Family] = "self"
    paper: ClassVar[str] = "Furlanello et al. 2018, arXiv:1805.04770"
    controls: ClassVar[tuple[str, ...] | None] = ("label_smoothing", "longer_scratch")

    generations: Count = 1
    temperature: Positive = 1.0
    hard_weight: Weight = 1.0
    soft_weight: Weight = 1.0
    masked_class: MaskedClass = None

    @property
    def needs(self) -> Needs:
        return Needs(teacher_architecture="student")

    def teacher_method(self) -> BornAgain | None:
        return None if self.generations == 1 else replace(self, generations=self.generations - 1)
