"""Asks for a tap that no network has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdbench import Needs, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class KnownNeeds(Imitates):
    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stage1", "attic"), teacher=("stage1",))


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"known_needs": KnownNeeds}
