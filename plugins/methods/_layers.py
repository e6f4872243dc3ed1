"""A student's initial weights, taken from a deeper teacher: told from the names in their state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from kdbench import NotApplicable

_LAYER = re.compile(r"((?:\D.*?\.)?)(\d+)(\..*)")  # "encoder.layer." "3" ".output.weight": the first number of a name


def taken(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The teacher's values for every name in the student's state dict.

    Raises:
        NotApplicable: the teacher has fewer layers, lacks a name, or has it in another shape.
    """
    found = {name: teacher[theirs] for name, theirs in counterparts(student, teacher).items()}
    for name, value in found.items():
        if value.shape != student[name].shape:
            own, other = list(student[name].shape), list(value.shape)
            raise NotApplicable(
                f"the student cannot start from the teacher: its '{name}' is {own}, the teacher's {other}"
            )
    return found


def counterparts(student: Iterable[str], teacher: Iterable[str]) -> dict[str, str]:
    """The teacher's name for each of the student's: the same, but for the number of its layer.

    The layers are taken at even steps from the first to the last, which of 12 for 6 are 0, 2, 4, 7, 9 and 11.
    """
    names = set(teacher)
    own, other, found = _depths(student := list(student)), _depths(names), {}
    for name in student:
        theirs = name
        if (layer := _LAYER.fullmatch(name)) and layer[1] in other:
            prefix, number, rest = layer.groups()
            if own[prefix] > other[prefix]:
                raise NotApplicable(f"the student has {own[prefix]} layers, more than the teacher's {other[prefix]}")
            theirs = f"{prefix}{round(int(number) * (other[prefix] - 1) / max(own[prefix] - 1, 1))}{rest}"
        if theirs not in names:
            raise NotApplicable(f"the student's '{name}' would start from '{theirs}', which the teacher does not have")
        found[name] = theirs
    return found


def _depths(names: Iterable[str]) -> dict[str, int]:
    """How many layers there are of each prefix."""
    depths: dict[str, int] = {}
    for name in names:
        if layer := _LAYER.fullmatch(name):
            depths[layer[1]] = max(depths.get(layer[1], 0), int(layer[2]) + 1)
    return depths
