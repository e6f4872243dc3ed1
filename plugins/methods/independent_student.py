"""The control of fidelity: a student that shares nothing with the others but the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdbench import Family, Method, Needs


@dataclass(frozen=True)
class IndependentStudent(Method):
    """Trains on the true labels alone, from weights and batches of its own.

    How far it agrees with a teacher that it never saw is how far any two networks agree that learnt the same data: what
    a distilled student must exceed before it can be said to follow its teacher. In everything but its random streams it
    is `scratch`, so that what sets the two apart is chance.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = ""
    explains_fidelity: ClassVar[tuple[Family, ...]] = ("response", "feature", "relation", "ensemble")

    @property
    def needs(self) -> Needs:
        return Needs(teacher=(), teachers=0, paired=False)
