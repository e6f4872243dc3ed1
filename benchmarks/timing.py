"""Fair timing: what is compared takes turns in the same minutes, and every figure comes with its spread.

Shared machines drift by tens of percent within a minute. So contenders are timed in rounds, each once a round, in an
order that rotates; ratios are taken within rounds, and their medians over the rounds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

_RESAMPLES = 2000


def _cpu() -> float:
    """Seconds of processor time that this process, all threads together, and its ended children were given."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


# "cpu" is what to take where a machine is shared; wall time is what users wait.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": _cpu}


@dataclass(frozen=True)
class Estimate:
    """A figure and its range: quartiles of single times, or a 95 % interval, as its maker says."""

    value: float
    low: float
    high: float

    def shown(self, digits: int = 3, factor: float = 1.0) -> str:
        """For tables: the value and its range."""
        value, low, high = (f"{factor * number:.{digits}f}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


@dataclass
class Rounds:
    """The seconds of each contender, round by round: the numbers at one position belong together."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, taken: Mapping[str, float]) -> None:
        """One more round, in which every contender was timed once."""
        for name, seconds in taken.items():
            self.seconds.setdefault(name, []).append(seconds)

    def extend(self, others: Rounds) -> None:
        """The rounds of another measurement after these."""
        for name, seconds in others.seconds.items():
            self.seconds.setdefault(name, []).extend(seconds)

    def median(self, *names: str) -> Estimate:
        """The median seconds of a contender, or of several together, and the quartiles."""
        low, middle, high = np.quantile(self.together(*names), (0.25, 0.5, 0.75))
        return Estimate(float(middle), float(low), float(high))

    def ratios(self, of: Sequence[str], to: str) -> NDArray[np.float64]:
        """Round by round, the seconds of some contenders together, in units of another's."""
        return self.together(*of) / self.together(to)

    def together(self, *names: str) -> NDArray[np.float64]:
        """Round by round, the seconds of these contenders together; one that is named twice counts twice."""
        return np.sum([self.seconds[name] for name in names], axis=0)


@dataclass(frozen=True)
class Line:
    """A least-squares line through the medians at each x, with 95 % bootstrap intervals over the rounds."""

    slope: Estimate
    intercept: Estimate


def median_interval(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """The median and its 95 % percentile bootstrap interval."""
    middle = float(np.median(values))
    if len(values) < 2:
        return Estimate(middle, middle, middle)
    found = bootstrap((values,), np.median, n_resamples=_RESAMPLES, method="percentile", rng=0).confidence_interval
    return Estimate(middle, float(found.low), float(found.high))


def line(samples: Mapping[int, Sequence[float] | NDArray[np.float64]]) -> Line:
    """The line through the medians of `samples`, which hold the rounds at each x; two x or more."""
    at = np.array(sorted(samples), dtype=np.float64)
    random = np.random.default_rng(0)
    whole = [np.array(samples[int(x)]) for x in at]
    drawn = [np.median(random.choice(values, (_RESAMPLES, len(values))), axis=1) for values in whole]
    fits = np.polyfit(at, np.stack(drawn), 1)
    fitted = np.polyfit(at, [np.median(values) for values in whole], 1)
    slope, intercept = (
        Estimate(float(value), *map(float, np.quantile(resampled, (0.025, 0.975))))
        for value, resampled in zip(fitted, fits, strict=True)
    )
    return Line(slope, intercept)


def seconds_of(work: Callable[[], object], clock: str = "wall") -> float:
    """The time of one call."""
    now = CLOCKS[clock]
    started = now()
    work()
    return now() - started


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int, clock: str = "wall"
) -> Rounds:
    """Times every contender once a round, in rotating order; the first `warmup` rounds do not count."""
    found = Rounds()
    for number in range(warmup + rounds):
        taken = {name: seconds_of(contenders[name], clock) for name in rotated(contenders, number)}
        if number >= warmup:
            found.add(taken)
    return found


def rotated(names: Iterable[str], turn: int) -> list[str]:
    """The names, beginning with another one each turn; backwards, when each has been the first, so that none comes
    after the same one always."""
    order = list(names)
    backwards, start = divmod(turn, max(len(order), 1))
    return (order[start:] + order[:start])[:: -1 if backwards % 2 else 1]
