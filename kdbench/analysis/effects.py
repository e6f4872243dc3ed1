"""Effect: a difference over seeds and test examples, with what its variance is made of and what can be said of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kdbench.analysis.statistics import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pair = tuple["NDArray[np.floating] | None", "NDArray[np.floating] | None"]

MOST_SEEDS = 1000  # beyond it, more seeds are no advice


@dataclass(frozen=True)
class Effect:
    """A mean difference between two methods, positive = better, and the variance of that mean.

    Seeds and test examples are crossed: every seed is scored on the same examples. So the mean of S seeds varies by
    s^2 / S, what differs from seed to seed, and by a part that all seeds share and no further seed reduces.

    Attributes:
        estimate: the mean of the paired differences over seeds.
        seed_variance: s^2 / S, with S - 1 degrees of freedom. NaN for one seed.
        example_variance: the shared part, from resampling the test examples.
        seeds: S.
    """

    estimate: float
    seed_variance: float
    example_variance: float
    seeds: int

    @classmethod
    def of(cls, per_seed: NDArray[np.float64], influences: NDArray[np.float64] | None = None) -> Effect:
        """The effect of paired differences `per_seed` [seeds]; `influences` [seeds, examples] say how much each test
        example contributes to them (of a mean: its deviation from it); None where only the seeds shall count.

        The sum of squared influences over the squared number of examples is the variance that a bootstrap over
        examples tends to (the infinitesimal jackknife, Efron 1982). Of the mean over S seeds it is B + C / S, of a
        single seed B + C. C, the noise of each seed's own answers, is in s^2 already, so only B is added to it.
        """
        import numpy as np

        seeds = len(per_seed)
        spread = float(np.var(per_seed, ddof=1)) / seeds if seeds > 1 else math.nan
        shared = 0.0
        if influences is not None:
            examples = influences.shape[1]
            joint = float(np.square(influences.mean(axis=0)).sum()) / examples**2
            own = float(np.square(influences).sum()) / examples**2 / seeds**2
            shared = joint if seeds == 1 else max(0.0, (joint - own) * seeds / (seeds - 1))
        return cls(float(np.mean(per_seed)), spread, shared, seeds)

    @classmethod
    def paired(cls, gains: Sequence[float], influences: Sequence[Pair], sign: int = 1) -> Effect:
        """The effect of `gains` per seed, each with the `influences` of the two networks that are compared: those that
        gained, and the others. `sign` is -1 where lower scores are better. Over the seeds only, unless all are known.
        """
        import numpy as np

        moved = [sign * (own - other) for own, other in influences if own is not None and other is not None]
        known = len(moved) == len(gains) and len({len(each) for each in moved}) == 1
        return cls.of(np.array(gains), np.stack(moved) if known else None)

    @property
    def bounded(self) -> bool:
        """Whether anything is known of its spread over seeds: two seeds or more."""
        return math.isfinite(self.seed_variance)

    @property
    def standard_error(self) -> float:
        """The square root of both variances together; NaN for one seed."""
        return math.sqrt(self.seed_variance + self.example_variance)

    def quantile(self, probability: float) -> float:
        """How many standard errors the estimate stays within, one-sided, with `probability`.

        The mean of two answers to unequal degrees of freedom (few seeds, many examples): Welch-Satterthwaite's, which
        promises too much where the seeds' spread came out small by chance, and Cochran & Cox's (1957), which promises
        too little. `make validate-statistics` shows the coverage of the intervals that follow.
        """
        from scipy.special import ndtri, stdtrit

        a, b, degrees = self.seed_variance, self.example_variance, self.seeds - 1
        if a + b == 0:
            return float(stdtrit(degrees, probability))
        normal, student = float(ndtri(probability)), float(stdtrit(degrees, probability))
        cochran = (a * student + b * normal) / (a + b)
        if a == 0:
            return normal
        return (cochran + float(stdtrit(degrees * ((a + b) / a) ** 2, probability))) / 2

    def interval(self, confidence: float = 0.95) -> Interval:
        """The two-sided interval of the effect; unbounded for one seed."""
        if not self.bounded:
            return Interval(self.estimate, math.nan, math.nan, self.seeds)
        reach = self.quantile((1 + confidence) / 2) * self.standard_error
        return Interval(self.estimate, self.estimate - reach, self.estimate + reach, self.seeds)

    def p_value(self, null: float = 0.0, alternative: Literal["two-sided", "greater", "less"] = "two-sided") -> float:
        """The probability of so large a difference from `null`, if `null` were true; 1 where nothing is known."""
        if not self.bounded:
            return 1.0
        distance = self.estimate - null
        if alternative != "two-sided":
            upper = self._tail(abs(distance))
            return upper if (distance > 0) == (alternative == "greater") else 1 - upper
        return 2 * self._tail(abs(distance))

    def _tail(self, distance: float) -> float:
        """The one-sided probability beyond `distance`: the inverse of `quantile`, sought between Student's distribution
        with the seeds' degrees of freedom and the normal one, which hold it between them."""
        from scipy.optimize import brentq
        from scipy.special import ndtr, stdtr

        error = self.standard_error
        if distance == 0:
            return 0.5
        if error == 0:
            return 0.0
        wanted, most = distance / error, 1 - 1e-15
        low, high = float(stdtr(self.seeds - 1, wanted)), min(float(ndtr(wanted)), most)
        if self.quantile(high) <= wanted:  # nothing but test examples varies, or it is too far out to tell from 0
            return 1 - high if high < most else 0.0
        if self.quantile(low) >= wanted:  # nothing but seeds varies
            return 1 - low
        return 1 - float(brentq(lambda probability: self.quantile(probability) - wanted, low, high))

    def equivalence_p_value(self, margin: float) -> float:
        """The larger p-value of two one-sided tests that the effect lies within ±`margin` (Schuirmann 1987)."""
        return max(self.p_value(-margin, "greater"), self.p_value(margin, "less"))

    def with_seeds(self, seeds: int) -> Effect:
        """The same effect, had there been so many seeds of the same spread."""
        return Effect(self.estimate, self.seed_variance * self.seeds / seeds, self.example_variance, seeds)

    def detectable(self, power: float = 0.8, confidence: float = 0.95) -> float:
        """The smallest true effect that an experiment like this one finds with `power`; infinite for one seed."""
        if not self.bounded:
            return math.inf
        return (self.quantile((1 + confidence) / 2) + self.quantile(power)) * self.standard_error

    def seeds_to_settle(self, margin: float, power: float = 0.8, confidence: float = 0.95) -> int | None:
        """How many seeds would tell an effect of `margin` from none with `power`, if seeds vary as these did.

        None where that takes more than a thousand, or more test examples instead: their share of the variance stays.
        """
        if not self.bounded:
            return None
        low, high = 2, MOST_SEEDS
        if self.with_seeds(high).detectable(power, confidence) > margin:
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (
                (low, middle) if self.with_seeds(middle).detectable(power, confidence) <= margin else (middle + 1, high)
            )
        return low


def holm(p_values: list[float]) -> list[float]:
    """P-values of one family of comparisons, adjusted so that at most one family in twenty errs (Holm 1979)."""
    # Not statsmodels' multipletests, which collects garbage at each call: half a second beside a trained network.
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, least = dict.fromkeys(order, 0.0), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return [adjusted[index] for index in range(len(p_values))]
