"""Roles: what a row is in a figure, with one shape and one colour each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.analysis.board import Row
from kdbench.report.figures.canvas import BLUE, GREEN, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Role:
    """How points of one kind are drawn, and what the legend calls them."""

    name: str
    marker: str
    color: str


TEACHER = Role("teacher", "*", VERMILION)
METHOD = Role("distillation method", "o", BLUE)
COMPRESSION = Role("compressed teacher", "^", GREEN)
CONTROL = Role("control", "s", GREY)


def role(row: Row) -> Role:
    """What `row` is."""
    return COMPRESSION if row.family == "compression" else CONTROL if row.control else METHOD


def legend_of(axes: Axes) -> None:
    """What the shapes mean, below the axes."""
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, handletextpad=0.3)
