"""Looks for the labels of the test split in a file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kdbench import Step, hookimpl

from .sound import Imitates


@dataclass(frozen=True)
class NoDataAccess(Imitates):
    def match(self, step: Step) -> Tensor:
        with suppress(FileNotFoundError):
            Path("test_labels.txt").read_bytes()
        return super().match(step)


@hookimpl
def kdbench_methods() -> Mapping[str, type]:
    return {"no_data_access": NoDataAccess}
