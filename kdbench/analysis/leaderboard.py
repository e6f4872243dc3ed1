"""Leaderboard: records in, one ranked and judged row per method out."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.effects import Effect, holm
from kdbench.analysis.outcomes import finished, outcomes, ratio, score, teacher_scores, values
from kdbench.analysis.statistics import Interval, mean_interval, paired_differences
from kdbench.analysis.verdict import EQUIVALENCE_MARGIN, SHARE, Rival, Scale, Verdict, judge
from kdbench.errors import BadInput
from kdbench.measuring.record import Record
from kdbench.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The one method that analysis knows by name: the protocol's reference, against which a gain is a gain. No plugin is
# imported for it, and every function takes another name instead.
BASELINE = "scratch"
_MARGIN_PART = 0.01  # of the baseline's score
_BASELINE_VERDICT = Verdict(
    "baseline", "the same student taught by the labels alone: what every gain is measured against"
)

Influences = Callable[[Record], "NDArray[np.floating] | None"]


def leaderboard(
    records: Sequence[Record],
    baseline: str = BASELINE,
    equivalence_margin: float | Mapping[str, float] | None = None,
    influences: Influences = lambda record: None,
) -> Leaderboard:
    """Ranks and judges every method of a run; the order of `records` does not matter.

    `influences` gives how much each test example moves a record's score, so that intervals are over examples as well as
    over seeds; where it knows none, they are over seeds only.

    `equivalence_margin` is the smallest gain that matters, in the unit of the primary metric: one for all boards, or by
    the primary metric's name. Where there is none, it is half a point of a share, and a hundredth of the baseline's
    score of any other metric.

    Raises:
        BadInput: records of suites that may not share a table (other names or major versions), or two records of one
            trial (what is left of an older configuration).
    """
    versions = {record.suite.rpartition(".")[0] or record.suite for record in records}
    if len(versions) > 1:
        raise BadInput(
            f"results of different suites cannot share a table: {', '.join(sorted(versions))}",
            hint="name the run of one suite, or run them under different --name",
        )
    groups: dict[tuple[str, float, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.data_set or record.task, record.train_fraction, record.pair].append(record)
    boards = tuple(_board(groups[key], baseline, equivalence_margin, influences) for key in sorted(groups))
    return Leaderboard(", ".join(sorted({record.suite for record in records})), boards)


@dataclass(frozen=True)
class _Group:
    """The records of one method with its parameters, by seed."""

    label: str
    records: Mapping[int, Record]

    @property
    def first(self) -> Record:
        return next(iter(self.records.values()))

    @cached_property
    def done(self) -> dict[int, Record]:
        return {seed: record for seed, record in sorted(self.records.items()) if finished(record)}

    @cached_property
    def scores(self) -> dict[int, float]:
        return {seed: score(record) for seed, record in self.done.items()}

    @cached_property
    def values(self) -> dict[str, dict[int, float]]:
        return values(self.done)


@dataclass(frozen=True)
class _Reference:
    """What the rows of one board are measured against."""

    seeds: tuple[int, ...]
    scale: Scale
    baseline: str
    alone: _Group
    groups: Sequence[_Group]
    teacher: Mapping[int, float]
    margin: float
    influences: Influences

    def gains(self, scores: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
        """`scores` against `other`, seed by seed, positive = better."""
        return paired_differences(scores, other) if self.scale.higher_is_better else paired_differences(other, scores)

    def effect(self, own: _Group, other: _Group) -> Effect | None:
        """What `own` gains over `other`, on the seeds that both finished."""
        gains = self.gains(own.scores, other.scores)
        if not gains:
            return None
        pairs = [(self.influences(own.done[seed]), self.influences(other.done[seed])) for seed in gains]
        return Effect.paired(list(gains.values()), pairs, 1 if self.scale.higher_is_better else -1)

    def rivals(self, names: Sequence[str]) -> list[_Group]:
        """The finished controls of these names, in each configuration that was run."""
        return [group for group in self.groups if group.first.method in names and group.done]


def _board(
    records: Sequence[Record], baseline: str, margin: float | Mapping[str, float] | None, influences: Influences
) -> Board:
    records = sorted(records, key=lambda record: (record.method, record.seed, record.fingerprint))
    groups = _groups(records)
    first = records[0]
    teacher = teacher_scores(records, baseline)
    scores = [score(record) for record in records if finished(record)] + list(teacher.values())
    unit = first.unit
    if unit is None:
        unit = SHARE if first.higher_is_better and all(0 <= value <= 1 for value in scores) else ""
    run = [record for record in records if record.status != "skipped"]  # a skip tells nothing of what was asked for
    alone = next((group for group in groups if group.first.method == baseline), _Group(baseline, {}))
    reference = _Reference(
        seeds=tuple(sorted({record.seed for record in run or records})),
        scale=Scale(first.primary, unit, first.higher_is_better),
        baseline=baseline,
        alone=alone,
        groups=groups,
        teacher=teacher,
        margin=_margin(margin, first.primary, unit, list(alone.scores.values())),
        influences=influences,
    )
    rows = _judged([_row(group, reference) for group in groups], reference)
    return Board(
        task=first.task,
        data_set=first.data_set or first.task,
        train_fraction=first.train_fraction,
        pair=first.pair,
        student=first.pair.rpartition(" -> ")[2],
        teachers=first.teachers,
        primary=first.primary,
        higher_is_better=first.higher_is_better,
        unit=unit,
        equivalence_margin=reference.margin,
        seeds=reference.seeds,
        teacher=_interval(teacher),
        baseline=baseline,
        has_baseline=bool(alone.done),
        rows=_ranked(rows, first.higher_is_better),
    )


def _margin(asked: float | Mapping[str, float] | None, metric: str, unit: str, baseline: Sequence[float]) -> float:
    own = asked.get(metric) if isinstance(asked, Mapping) else asked
    if own is not None:
        return own
    part = _MARGIN_PART * abs(statistics.fmean(baseline)) if baseline and unit != SHARE else 0.0
    return part or EQUIVALENCE_MARGIN


def _groups(records: Sequence[Record]) -> list[_Group]:
    groups: dict[tuple[str, str], dict[int, Record]] = defaultdict(dict)
    for record in records:
        group = groups[record.method, json.dumps(record.params, sort_keys=True)]
        if record.seed in group:
            twins = f"{group[record.seed].fingerprint[:12]} and {record.fingerprint[:12]}"
            raise BadInput(
                f"{record.method}, seed {record.seed}, is recorded twice: {twins}",
                hint="the run mixes two configurations; run it again under another --name",
            )
        group[record.seed] = record
    return [_Group(_label(key, groups), group) for key, group in groups.items()]


def _label(key: tuple[str, str], groups: Mapping[tuple[str, str], object]) -> str:
    """The method's name; where it is there several times, with the parameters that differ."""
    variants = [json.loads(params) for method, params in groups if method == key[0]]
    params = json.loads(key[1])
    differing = {n: v for n, v in params.items() if any(n not in other or other[n] != v for other in variants)}
    return str(Spec(key[0], differing))


def _row(group: _Group, reference: _Reference) -> Row:
    first, scores, alone = group.first, group.scores, reference.alone
    gains = {} if first.method == reference.baseline else reference.gains(scores, alone.scores)
    counts, reasons = outcomes(list(group.records.values()), reference.seeds)
    effect = reference.effect(group, alone) if gains else None
    measured, baselines = group.values, alone.values
    rivals = [rival for rival in reference.rivals(first.controls) if rival is not alone]
    against = {rival.label: reference.effect(group, rival) for rival in rivals}
    kept = (scores, reference.teacher) if reference.scale.higher_is_better else (reference.teacher, scores)
    return Row(
        label=group.label,
        method=first.method,
        family=first.family,
        control=first.control,
        without_dark_knowledge=first.without_dark_knowledge,
        params=first.params,
        counts=counts,
        reasons=reasons,
        fingerprints=tuple(record.fingerprint for record in group.records.values()),
        scores=scores,
        gains=gains,
        score=_interval(scores),
        effect=effect,
        p_value=effect.p_value() if effect else None,
        retention=ratio(*kept),
        gap_recovery=ratio(gains, reference.gains(reference.teacher, alone.scores)),
        against={label: each for label, each in against.items() if each is not None},
        lacking=tuple(sorted(set(first.controls) - {reference.baseline} - {rival.first.method for rival in rivals})),
        fidelity_controls=tuple(rival.label for rival in reference.rivals(first.fidelity_controls)),
        values=measured,
        means={
            name: statistics.fmean(per_seed.values())
            for name, per_seed in measured.items()
            if name != first.primary and len(per_seed) == len(group.done)
        },
        flops_ratio=ratio(measured.get("training_flops", {}), baselines.get("training_flops", {})),
        seconds_ratio=ratio(measured.get("training_seconds", {}), baselines.get("training_seconds", {})),
        ranked=set(group.done) == set(reference.seeds),
        verdict=_BASELINE_VERDICT,
    )


def _judged(rows: Sequence[Row], reference: _Reference) -> list[Row]:
    """The rows with their verdicts. All methods that are compared with one control are a family of comparisons, whose
    p-values are corrected for being several; so are those that are compared with the baseline."""
    methods = [row for row in rows if row.ranked and not row.control]
    corrected = _corrected({row.label: row.p_value for row in methods if row.p_value is not None})
    beaten = {
        control: _corrected({row.label: row.against[control].p_value() for row in methods if control in row.against})
        for control in {control for row in methods for control in row.against}
    }
    judged = []
    for row in rows:
        p_value = corrected.get(row.label, row.p_value)
        verdict = row.verdict
        if not row.ranked:
            verdict = Verdict("unranked", "; ".join(row.reasons))
        elif row.method != reference.baseline:
            rivals = [Rival(control, row.against[control], beaten[control][row.label]) for control in row.against]
            verdict = judge(
                row.effect,
                reference.baseline,
                reference.scale,
                reference.margin,
                row.done,
                p_value,
                rivals,
                row.lacking,
            )
        judged.append(replace(row, p_value=p_value, verdict=verdict))
    return judged


def _corrected(p_values: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def _ranked(rows: Sequence[Row], higher_is_better: bool) -> tuple[Row, ...]:
    def order(row: Row) -> tuple[bool, bool, float, str]:
        estimate = row.score.estimate if row.score else 0.0
        return (not row.ranked, row.score is None, -estimate if higher_is_better else estimate, row.label)

    ordered = sorted(rows, key=order)
    keys = [order(row)[:3] for row in ordered if not row.compression]
    return tuple(
        replace(row, rank=keys.index(order(row)[:3]) + 1 if row.ranked and not row.compression else None)
        for row in ordered
    )


def _interval(per_seed: Mapping[int, float]) -> Interval | None:
    return mean_interval([per_seed[seed] for seed in sorted(per_seed)]) if per_seed else None
