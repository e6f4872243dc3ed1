"""Of a family that no control applies to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from kdbench import hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class KnownFamily(Imitates):
    family: ClassVar = "magic"


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"known_family": KnownFamily}
