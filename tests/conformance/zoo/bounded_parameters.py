"""Its weight may be any number, also a negative one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdbench import hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class BoundedParameters(Imitates):
    weight: float = 1.0


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"bounded_parameters": BoundedParameters}
