"""Table: what stands behind a figure or in a section, as text; templates and writers lay it out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdbench.analysis.columns import MISSING

_NUMBER = re.compile(r"[+-]?\d[\d.]*[kMGTP]?(×| ms| MiB|/\d+| ± [\d.]+| \[.*\]| to .*)?")


@dataclass(frozen=True)
class Line:
    """One line of a table; `kind` says what it stands for where that is worth showing ("teacher", "control")."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Headers and lines of as many cells each."""

    headers: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Per column, whether it holds numbers, as far as it holds anything."""
        columns = zip(*(line.cells for line in self.lines), strict=True)
        known = ([cell for cell in column if cell not in ("", MISSING)] for column in columns)
        return tuple(bool(cells) and all(map(_NUMBER.fullmatch, cells)) for cells in known)

    @classmethod
    def of(cls, headers: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
        """A table whose lines are all of the same kind."""
        return cls(tuple(headers), tuple(Line(tuple(cells)) for cells in lines))
