"""Ratios: one quantity of the same trials over another, with an interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from kdbench.analysis.statistics import Interval, mean_interval


def ratio_interval(above: Mapping[int, float], below: Mapping[int, float]) -> Interval | None:
    """The ratio of the means over the seeds that both have, and its 95 % interval.

    Linearised: r = sum(a) / sum(b) varies as the mean of (a - r b) / mean(b) does (Cochran 1977, section 2.11). None
    where no seed is common or the denominator is not positive.
    """
    seeds = sorted(above.keys() & below.keys())
    denominator = statistics.fmean(below[seed] for seed in seeds) if seeds else 0.0
    if denominator <= 0:
        return None
    ratio = math.fsum(above[seed] for seed in seeds) / len(seeds) / denominator
    return mean_interval([ratio + (above[seed] - ratio * below[seed]) / denominator for seed in seeds])
