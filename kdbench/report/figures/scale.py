"""The scale of a figure: what lies so far out that everything else would shrink to a line is named, not drawn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

_FEWEST = 5  # values that can have outliers
_FAR = 3.0  # quartile distances beyond the quartiles: "far out" (Tukey 1977)


def fences(values: Sequence[float]) -> tuple[float, float]:
    """Between which values nothing is far out; unbounded where there are few, or most are equal."""
    if len(values) < _FEWEST:
        return -math.inf, math.inf
    low, _, high = statistics.quantiles(values, method="inclusive")
    reach = _FAR * (high - low)
    return (low - reach, high + reach) if reach > 0 else (-math.inf, math.inf)


def far_out(values: Mapping[str, float]) -> set[str]:
    """The names of the values outside of their fences."""
    low, high = fences(list(values.values()))
    return {name for name, value in values.items() if not low <= value <= high}


def off_the_scale(values: Mapping[str, str]) -> str:
    """A sentence, led by a space, that names what a figure leaves out, with its value; "" where that is nothing."""
    said = ", ".join(f"{name} ({value})" for name, value in values.items())
    return f" Off the scale: {said}." if said else ""
