"""Verdicts: what the paired differences allow to be said, in one word and one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kdbench.analysis.effects import Effect
from kdbench.analysis.statistics import Interval

Label = Literal["works", "control explains", "no effect", "hurts", "inconclusive", "unranked", "baseline"]

EQUIVALENCE_MARGIN = 0.005  # half a point of a share: the smallest effect of interest where the suite names none

SHARE = "share"
SIGNIFICANCE = 0.05
_NO_SPREAD = 1e-9  # differences that agree this well agree exactly: the rest is rounding of their subtraction


@dataclass(frozen=True)
class Verdict:
    """One word, and the sentence of evidence behind it."""

    label: Label
    evidence: str


@dataclass(frozen=True)
class Rival:
    """A control that might explain a method's gain.

    Attributes:
        label: the control's, on the board.
        effect: what the method gains over it.
        p_value: that it gains nothing, corrected for the other methods that are compared with this control.
    """

    label: str
    effect: Effect
    p_value: float

    @property
    def beaten(self) -> bool:
        """Whether the method is surely better."""
        return self.p_value < SIGNIFICANCE and self.effect.estimate > 0


@dataclass(frozen=True)
class Scale:
    """How the values of one metric are said: shares in percent and points (hundredths), all else in its own unit.

    `unit` as in `Board`.
    """

    metric: str
    unit: str = SHARE
    higher_is_better: bool = True

    @property
    def share(self) -> bool:
        """Whether it is a part of a whole."""
        return self.unit == SHARE

    @property
    def factor(self) -> float:
        """What a value is multiplied by before it is shown."""
        return 100.0 if self.share else 1.0

    def number(self, value: float, digits: int, sign: bool = False) -> str:
        """`value` with `digits` decimals; a sign, where asked for, is kept through rounding, because it decides."""
        shown = abs(value * self.factor)
        before = "-" if value < 0 and (sign or round(shown, digits)) else "+" if sign and value > 0 else ""
        return f"{before}{shown:.{digits}f}"

    def digits(self, intervals: Sequence[Interval | None]) -> int:
        """The decimals that the typical one of `intervals` supports: half a width of 1.2 leaves no meaning to 0.01.

        Where none has a width: two of a share, and four digits in all of anything else.
        """
        known = [interval for interval in intervals if interval is not None]
        widths = sorted(interval.half_width * self.factor for interval in known if interval.bounded)
        typical = widths[len(widths) // 2] if widths else 0.0
        if self.share:
            return 1 if typical >= 1 else 2
        largest = max((abs(interval.estimate) for interval in known), default=0.0)
        return _decimals(typical, 2) if typical > _NO_SPREAD else _decimals(largest, 4)

    @property
    def unit_in_words(self) -> str:
        """What differences are counted in."""
        return "points" if self.share else self.unit or self.metric.replace("_", " ")


def _decimals(value: float, digits: int) -> int:
    """How many decimals show `value` with so many significant digits."""
    return max(0, digits - 1 - math.floor(math.log10(value))) if value > 0 else digits - 1


def judge(
    effect: Effect | None,
    baseline: str,
    scale: Scale,
    margin: float = EQUIVALENCE_MARGIN,
    seeds: int | None = None,
    p_value: float | None = None,
    rivals: Sequence[Rival] = (),
    lacking: Sequence[str] = (),
) -> Verdict:
    """What its effect over the baseline, positive = better, shows about one method.

    In this order, because the margin is the smallest effect that matters, by the suite's own word:

    1. **inconclusive** where there is nothing to judge by: one seed, or gains that agree exactly over all seeds and
       nothing known of the test examples: a zero spread is then an accident and not a certainty.
    2. **no effect**: the 90 % interval lies within ±`margin` (two one-sided tests at 5 %: Schuirmann 1987), or every
       gain is exactly 0. It comes before "works": a gain that is surely real but also surely too small to matter must
       not be sold as one; the sentence then says that it is real.
    3. **hurts**: `p_value` is below 5 %, and the effect negative.
    4. **works**: it is below 5 %, the effect positive, and so it is against every one of `rivals`.
    5. **control explains** the gain: a rival is not surely beaten, and within `margin` of the method or ahead.
    6. **inconclusive**, with the number of seeds that would settle it.

    `p_value` is corrected for the other methods that are compared with the same baseline; None: the effect's own.
    `lacking`: controls that apply and have no result here; the sentence names them.
    `seeds` is how many seeds the method finished; where the baseline lacks some of them, the sentence says so.
    """
    if effect is None:
        return Verdict("inconclusive", f"no seed in common with {baseline}, so nothing to compare with")
    interval = effect.interval()
    said = gain_in_words(interval, baseline, scale, seeds)
    if not interval.bounded:
        return Verdict("inconclusive", f"{said}: one seed shows no spread, so no interval; run more seeds")
    if effect.standard_error <= _NO_SPREAD:
        if abs(effect.estimate) <= _NO_SPREAD:
            return Verdict("no effect", f"{said}: the same score on every seed")
        return Verdict("inconclusive", f"{said}: the gain is the same on every seed, so its spread is unknown")
    sure = (effect.p_value() if p_value is None else p_value) < SIGNIFICANCE
    if effect.interval(1 - 2 * SIGNIFICANCE).within(-margin, margin):
        judged = "a real difference, but smaller than" if sure else "equivalent within"
        return Verdict("no effect", f"{said}: {judged} the margin of {margin * scale.factor:.3g} {scale.unit_in_words}")
    if not sure:
        return Verdict("inconclusive", f"{said}: {_doubt(effect, margin, scale, p_value)}")
    if effect.estimate < 0:
        return Verdict("hurts", said)
    return _against_controls(said, rivals, lacking, margin, scale)


def _against_controls(
    said: str, rivals: Sequence[Rival], lacking: Sequence[str], margin: float, scale: Scale
) -> Verdict:
    """The verdict on a method that surely beats the baseline."""
    unsure = sorted((rival for rival in rivals if not rival.beaten), key=lambda rival: rival.effect.estimate)
    explaining = [rival for rival in unsure if rival.effect.estimate <= margin]
    untested = f"; not compared with {', '.join(lacking)}, without a result here" if lacking else ""
    if explaining:
        names = ", ".join(f"{rival.label} ({_over(rival, scale)})" for rival in explaining)
        verb = "explain" if len(explaining) > 1 else "explains"
        return Verdict("control explains", f"helps, {said}, but {names} {verb} it{untested}")
    if unsure:
        first = unsure[0]
        doubt = _doubt(first.effect, margin, scale, first.p_value)
        others = f" (nor than {_listed(unsure[1:])})" if unsure[1:] else ""
        why = f"but not surely better than {first.label}{others}, {_over(first, scale)}: {doubt}"
        return Verdict("inconclusive", f"{said}, {why}{untested}")
    beaten = f"; better than {_listed(rivals)} too" if rivals else ""
    return Verdict("works", f"{said}{beaten}{untested}")


def _over(rival: Rival, scale: Scale) -> str:
    """`+0.2 points over it, -0.4 to +0.8`"""
    interval = rival.effect.interval()
    digits = scale.digits([interval])
    ends = (scale.number(end, digits, sign=True) for end in (interval.low, interval.high))
    between = f", {' to '.join(ends)}" if interval.bounded else ""
    return f"{scale.number(interval.estimate, digits, sign=True)} {scale.unit_in_words} over it{between}"


def _listed(rivals: Sequence[Rival]) -> str:
    return ", ".join(rival.label for rival in rivals)


def _doubt(effect: Effect, margin: float, scale: Scale, p_value: float | None) -> str:
    """Why it is not sure, and what would settle it."""
    interval = effect.interval()
    why = "the interval includes 0"
    if p_value is not None and not interval.low <= 0 <= interval.high:
        why = f"not sure once corrected for the methods compared (p = {p_value:.2f})"
    size = max(margin, abs(effect.estimate))
    # Holm's correction asks for more certainty than one comparison would, so it takes more seeds
    strictness = max(1.0, (p_value or 0.0) / own) if (own := effect.p_value()) > 0 else 1.0
    needed = effect.seeds_to_settle(size, confidence=1 - SIGNIFICANCE / strictness)
    if needed is None:
        return f"{why}; more test examples would have to settle it, seeds alone cannot"
    shown = scale.number(size, scale.digits([interval]))
    return f"{why}; about {max(needed, effect.seeds + 1)} seeds would tell {shown} {scale.unit_in_words} from none"


def gain_in_words(interval: Interval, baseline: str, scale: Scale, seeds: int | None = None) -> str:
    """`+1.9 points over scratch, 95 % interval +0.7 to +3.1, 3 paired seeds`; `a gain of +1.9 cycles over ...` where
    lower is better."""
    digits = scale.digits([interval])
    gain = f"{scale.number(interval.estimate, digits, sign=True)} {scale.unit_in_words} over {baseline}"
    gain = gain if scale.higher_is_better else f"a gain of {gain}"
    if interval.bounded:
        low, high = (scale.number(end, digits, sign=True) for end in (interval.low, interval.high))
        gain += f", 95 % interval {low} to {high}"
    paired = f"{interval.n} paired seed{'s' if interval.n != 1 else ''}"
    if seeds is not None and seeds > interval.n:
        paired += f" of {seeds} ({baseline} has no result for the others)"
    return f"{gain}, {paired}"
