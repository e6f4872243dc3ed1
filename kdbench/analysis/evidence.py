"""Evidence: findings, what they come to, and how the differences behind them are weighed together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kdbench.analysis.effects import Effect, holm
from kdbench.analysis.verdict import SIGNIFICANCE

Answer = Literal["supported", "mixed", "inconclusive", "contradicted", "not tested"]
Speaks = Literal["for", "against", "open"]

_NO_SPREAD = 1e-9  # differences that agree this well agree exactly: the rest is rounding of their subtraction


@dataclass(frozen=True)
class Finding:
    """One sentence, and whether it speaks for a claim.

    `controls`: the labels of the rows, controls mostly, that its method was compared with.
    """

    said: str
    speaks: Speaks
    controls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """One difference that bears on a claim, positive = for it, before it is weighed with the others.

    Attributes:
        family: the comparisons that p-values are corrected for: several methods in one respect, against one reference.
        null: what the effect must surely exceed: 0, or minus a margin where "no worse" is claimed.
        margin: an effect surely within ±`margin` does not matter, so it speaks against; 0 where none is known.
        decides: False where it stays open whatever the effect, because something else differs too.
    """

    said: str
    effect: Effect
    family: str
    controls: tuple[str, ...] = ()
    null: float = 0.0
    margin: float = 0.0
    decides: bool = True


def weigh(comparisons: Sequence[Comparison | None]) -> list[Finding]:
    """What each comparison shows at 5 %, corrected within its family (Holm 1979). None: nothing to compare."""
    made = [each for each in comparisons if each is not None]
    families: dict[str, list[Comparison]] = defaultdict(list)
    for each in made:
        families[each.family].append(each)
    found = {
        id(each): _finding(each, p_value)
        for family in families.values()
        for each, p_value in zip(family, holm([_p_value(each) for each in family]), strict=True)
    }
    return [found[id(each)] for each in made]


def _finding(comparison: Comparison, p_value: float) -> Finding:
    speaks, said = _speaks(comparison, p_value), comparison.said
    if not comparison.decides:
        speaks = "open"
    elif speaks == "open" and _p_value(comparison) < SIGNIFICANCE:
        said = f"{said}: not sure once corrected for the methods compared (p = {p_value:.2g})"
    return Finding(said, speaks, comparison.controls)


def together(findings: Sequence[Finding]) -> Finding:
    """One finding that speaks for a claim only where all of these do, and against it where one does."""
    speaks: Speaks = "open"
    if all(each.speaks == "for" for each in findings):
        speaks = "for"
    elif any(each.speaks == "against" for each in findings):
        speaks = "against"
    return Finding(
        "; ".join(each.said for each in findings), speaks, tuple(label for each in findings for label in each.controls)
    )


def _p_value(comparison: Comparison) -> float:
    effect = comparison.effect
    if effect.bounded and effect.standard_error <= _NO_SPREAD:
        return 1.0  # the same difference on every seed: a zero spread is an accident and no certainty
    return effect.p_value(comparison.null)


def _speaks(comparison: Comparison, p_value: float) -> Speaks:
    effect = comparison.effect
    if effect.bounded and effect.standard_error <= _NO_SPREAD and abs(effect.estimate) <= _NO_SPREAD:
        return "for" if comparison.null < 0 else "against"  # nothing differs at all
    if comparison.margin and effect.interval(1 - 2 * SIGNIFICANCE).within(-comparison.margin, comparison.margin):
        return "against"
    if p_value >= SIGNIFICANCE:
        return "open"
    return "for" if effect.estimate > comparison.null else "against"


def answer(findings: Sequence[Finding]) -> Answer:
    """All findings in one word.

    "mixed" where some speak for the claim and some against it; "supported" and "contradicted" where none speaks
    otherwise and no more than half are open; "inconclusive" where most are.
    """
    if not findings:
        return "not tested"
    count = {speaks: sum(each.speaks == speaks for each in findings) for speaks in ("for", "against", "open")}
    if count["for"] and count["against"]:
        return "mixed"
    if 2 * count["open"] > len(findings):
        return "inconclusive"
    return "supported" if count["for"] else "contradicted"


def sentences(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Where there are several, how many speak which way, with the first that does; then all of them, in that order."""
    ordered = [each for speaks in _WORDS for each in findings if each.speaks == speaks]
    if len(ordered) == 1:
        return (ordered[0].said,)
    counts = {words: sum(each.speaks == speaks for each in ordered) for speaks, words in _WORDS.items()}
    first, *others = [(count, words) for words, count in counts.items() if count]
    some = f"{first[0]} of {len(ordered)}" if others else f"all {len(ordered)}" if len(ordered) > 2 else "both"
    tally = [f"{some} comparisons {first[1]}", *(f"{count} {words}" for count, words in others)]
    return (
        f"{', '.join(tally)}; the first: {ordered[0].said}",
        *(f"{_WORDS[each.speaks]}: {each.said}" for each in ordered),
    )


_WORDS: dict[Speaks, str] = {"for": "for it", "against": "against it", "open": "undecided"}
