"""Takes anything as a hyper-parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdbench import hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class TypedParameters(Imitates):
    reduction: Any = "mean"


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"typed_parameters": TypedParameters}
