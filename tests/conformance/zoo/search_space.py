"""Its default lies outside of its search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from kdbench import Range, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class SearchSpace(Imitates):
    search_space: ClassVar = {"weight": Range(10.0, 100.0)}


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"search_space": SearchSpace}
