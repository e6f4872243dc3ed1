"""Says nothing of the paper and the equation it follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdbench import hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class Documented(Imitates):
    """Imitates the teacher."""


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"documented": Documented}
