"""Training without a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdbench import Family, Method


@dataclass(frozen=True)
class Scratch(Method):
    """Trains the student alone, on the true labels only.

    The control that rules out that the student would have got there by itself: every other method is compared with
    it, from the same initial weights and on the same batches.
    """

    family: ClassVar[Family] = "control"
    paper: ClassVar[str] = ""
