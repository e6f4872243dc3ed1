"""Differences: one method against another in one respect, as a sentence with the effect behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdbench.analysis.board import Board, Row
from kdbench.analysis.columns import magnitude
from kdbench.analysis.effects import Effect
from kdbench.analysis.evidence import Comparison, Finding, Speaks
from kdbench.analysis.ratios import ratio_interval
from kdbench.analysis.statistics import Interval, paired_differences
from kdbench.analysis.verdict import Scale, gain_in_words

SAME_COST = 1.1  # costs within a tenth count as equal: no two networks or schedules match exactly
_NOISE = 0.1  # how far a time that was measured only once may be off


@dataclass(frozen=True)
class Measure:
    """A metric of the record beside the primary one: its name there, in words, and how its values are said."""

    name: str
    words: str
    unit: str = ""
    higher_is_better: bool = True

    @property
    def scale(self) -> Scale:
        """How its values and differences are said."""
        return Scale(self.name.replace("_", " "), self.unit, self.higher_is_better)


CALIBRATION = (
    Measure("ece", "calibration error (ECE)", higher_is_better=False),
    Measure("nll", "negative log-likelihood (NLL)", "nats", higher_is_better=False),
    Measure("brier", "Brier score", higher_is_better=False),
)
FIDELITY = (
    Measure("agreement", "agreement with the teacher", "share"),
    Measure("agreement_teacher_right", "agreement where the teacher is right", "share"),
    Measure("agreement_teacher_wrong", "agreement where the teacher is wrong", "share"),
    Measure("teacher_kl", "KL divergence from the teacher", "nats", higher_is_better=False),
    Measure("teacher_kl_teacher_right", "KL divergence where the teacher is right", "nats", higher_is_better=False),
    Measure("teacher_kl_teacher_wrong", "KL divergence where the teacher is wrong", "nats", higher_is_better=False),
)
LIKENESS = (
    Measure("cka", "similarity of features to the teacher's (CKA)"),
    Measure("relation_correlation", "correlation of distances between examples with the teacher's"),
)
SALIENCY = (Measure("saliency_agreement", "agreement of saliency maps with the teacher's"),)

# Of the deployed network; the teacher's are the same names after "teacher_". The last two are the machine's.
COSTS: Mapping[str, str] = {
    "parameters": "parameters",
    "macs": "MACs",
    "file_bytes": "file size",
    "latency_ms_p50": "latency",
    "peak_memory_bytes": "peak memory",
}
_MEASURED = ("latency_ms_p50", "peak_memory_bytes")


def difference(where: str, row: Row, other: Row, measure: Measure) -> Comparison | None:
    """What `row` gains over `other` in a metric, paired by seed; None where they share no seed that has it."""
    own, theirs, scale = row.values.get(measure.name, {}), other.values.get(measure.name, {}), measure.scale
    gains = oriented(scale, own, theirs)
    if not gains:
        return None
    effect = effect_of(gains)
    digits = scale.digits([effect.interval()])
    mine, its = (
        scale.number(sum(each[seed] for seed in gains) / len(gains), digits) + (" %" if scale.share else "")
        for each in (own, theirs)
    )
    gained = gain_in_words(effect.interval(), other.label, scale)
    said = f"{where}{row.label}: {measure.words} {mine} against {its}: {gained}"
    return Comparison(said, effect, f"{where}{measure.name}/{other.label}", (other.label,))


def over(where: str, board: Board, row: Row, label: str, effect: Effect) -> Comparison:
    """What `row` gains over a control in the primary metric."""
    said = f"{where}{row.label}: {gain_in_words(effect.interval(), label, board.scale)}"
    return Comparison(said, effect, where + label, (label,), margin=board.equivalence_margin)


def no_worse(where: str, board: Board, row: Row, name: str, teacher: str) -> Comparison | None:
    """The score against a teacher's, in metric `name`: kept where it is surely less than the margin below it."""
    scores, theirs = row.scores, row.values.get(name, {})
    kept = ratio_interval(*((scores, theirs) if board.higher_is_better else (theirs, scores)))
    gains = oriented(board.scale, scores, theirs)
    if not gains or kept is None:
        return None
    effect, gap = effect_of(gains), ""
    if row.gap_recovery is not None and name == f"teacher_{board.primary}":
        gap = f", {100 * row.gap_recovery:.0f} % of the way from {board.baseline} to it"
    said = (
        f"{where}{row.label} keeps {_percent(kept)} of {teacher}'s {board.primary.replace('_', ' ')}{gap}: "
        f"{gain_in_words(effect.interval(), teacher, board.scale)}"
    )
    return Comparison(said, effect, where, null=-board.equivalence_margin)


def at_no_greater_cost(
    where: str, board: Board, row: Row, rival: Row, cost: Measure, margin: float = 0.0
) -> Comparison | None:
    """Whether `row` scores better than `rival` (no worse by `margin`) for no more of `cost`.

    A better score for more of it, or a worse one for less, decides nothing: then it stays open.
    """
    gains = oriented(board.scale, row.scores, rival.scores)
    price = ratio_interval(row.values.get(cost.name, {}), rival.values.get(cost.name, {}))
    if not gains or price is None:
        return None
    effect = effect_of(gains)
    said = (
        f"{where}{row.label}, at {price.estimate:.2f} times the {cost.words} of {rival.label}: "
        f"{gain_in_words(effect.interval(), rival.label, board.scale)}"
    )
    fair = price.estimate <= SAME_COST if effect.estimate > -margin else price.estimate >= 1 / SAME_COST
    return Comparison(said, effect, where + rival.label, (rival.label,), null=-margin, decides=fair)


def interaction(boards: tuple[Board, Board], rows: tuple[Row, Row], between: str) -> Comparison | None:
    """How much more a method gains on the first board than on the second, by seed; `between` says its gains.

    One that only hurts less on the first than on the second helps nowhere: then it stays open.
    """
    more = paired_differences(rows[0].gains, rows[1].gains)
    if not more:
        return None
    effect, (few, many) = effect_of(more), boards
    said = (
        f"{few.data_set}, {few.pair}: {rows[0].label} gains {between} of the training data, so with "
        f"{100 * few.train_fraction:g} % more than with {100 * many.train_fraction:g} % by "
        f"{interval_in_words(effect.interval(), few.scale)}"
    )
    helps = effect.estimate <= 0 or sum(rows[0].gains.values()) > 0
    return Comparison(said, effect, f"{few.data_set}, {few.pair}", (few.baseline,), decides=helps)


def smaller(row: Row, name: str) -> Finding | None:
    """One of the `COSTS` of a student against its teacher's; counted ones are exact, measured ones vary."""
    own, theirs = row.values.get(name, {}), row.values.get(f"teacher_{name}", {})
    share = ratio_interval(own, theirs)
    if share is None:
        return None
    # a run measures a student's speed once for all its methods and seeds: then its spread over seeds is no spread
    spread = name in _MEASURED and share.half_width > 0
    noise = _NOISE if name in _MEASURED and not spread else 0.0
    low, high = (share.low, share.high) if spread else (share.estimate - noise, share.estimate + noise)
    said = _percent(share) if spread else f"{100 * share.estimate:.3g} %"
    first = min(own.keys() & theirs.keys())
    sizes = f"{magnitude(own[first])} against {magnitude(theirs[first])}"
    speaks: Speaks = "for" if high < 1 else "against" if low >= 1 else "open"
    return Finding(f"{said} of the {COSTS[name]} ({sizes})", speaks)


def oriented(scale: Scale, own: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    """The differences per seed that both have, positive = better."""
    return paired_differences(own, theirs) if scale.higher_is_better else paired_differences(theirs, own)


def effect_of(gains: Mapping[int, float]) -> Effect:
    """The effect of paired differences whose test examples are not known one by one."""
    import numpy as np

    return Effect.of(np.array([gains[seed] for seed in sorted(gains)]))


def interval_in_words(interval: Interval, scale: Scale) -> str:
    """`+1.9 points (95 % interval +1.7 to +2.1, 3 paired seeds)`"""
    digits = scale.digits([interval])
    number = f"{scale.number(interval.estimate, digits, sign=True)} {scale.unit_in_words}"
    seeds = f"{interval.n} paired seed{'s' if interval.n != 1 else ''}"
    if not interval.bounded:
        return f"{number} ({seeds})"
    low, high = (scale.number(end, digits, sign=True) for end in (interval.low, interval.high))
    return f"{number} (95 % interval {low} to {high}, {seeds})"


def _percent(share: Interval) -> str:
    """`98.2 % (95 % interval 97.1 to 99.3)`"""
    said = f"{100 * share.estimate:.1f} %"
    return f"{said} (95 % interval {100 * share.low:.1f} to {100 * share.high:.1f})" if share.bounded else said
