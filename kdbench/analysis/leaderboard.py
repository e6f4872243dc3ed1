"""Leaderboard: records in, one ranked and judged row per method out."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Leaderboard, Outcome, Row
from kdbench.analysis.effects import Effect, holm
from kdbench.analysis.statistics import Interval, mean_interval, paired_differences
from kdbench.analysis.verdict import EQUIVALENCE_MARGIN, SHARE, Scale, Verdict, judge
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
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.task, record.pair].append(record)
    boards = tuple(_board(groups[key], baseline, equivalence_margin, influences) for key in sorted(groups))
    return Leaderboard(", ".join(sorted({record.suite for record in records})), boards)


@dataclass(frozen=True)
class _Reference:
    """What the rows of one board are measured against; scores and records per seed."""

    seeds: tuple[int, ...]
    scale: Scale
    higher_is_better: bool
    baseline: str
    records: Mapping[int, Record]
    teacher: Mapping[int, float]
    margin: float
    influences: Influences

    def gains(self, scores: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
        """`scores` against `other`, seed by seed, positive = better."""
        return paired_differences(scores, other) if self.higher_is_better else paired_differences(other, scores)

    def effect(self, gains: Mapping[int, float], records: Mapping[int, Record]) -> Effect | None:
        """The effect of `gains`, which `records` won over the baseline's."""
        import numpy as np

        if not gains:
            return None
        seeds, sign = sorted(gains), 1 if self.higher_is_better else -1
        pairs = [(self.influences(records[seed]), self.influences(self.records[seed])) for seed in seeds]
        moved = [sign * (own - other) for own, other in pairs if own is not None and other is not None]
        known = len(moved) == len(seeds) and len({len(each) for each in moved}) == 1
        return Effect.of(np.array([gains[seed] for seed in seeds]), np.stack(moved) if known else None)


def _board(
    records: Sequence[Record], baseline: str, margin: float | Mapping[str, float] | None, influences: Influences
) -> Board:
    records = sorted(records, key=lambda record: (record.method, record.seed, record.fingerprint))
    groups = _by_method(records)
    first, labels = records[0], _labels(groups)
    teacher = _teacher_scores(records, baseline)
    scores = [_score(record) for record in records if _finished(record)] + list(teacher.values())
    unit = first.unit
    if unit is None:
        unit = SHARE if first.higher_is_better and all(0 <= score <= 1 for score in scores) else ""
    baselines = [group for (method, _), group in groups.items() if method == baseline]
    measured = {seed: record for seed, record in (baselines[0] if baselines else {}).items() if _finished(record)}
    reference = _Reference(
        seeds=tuple(sorted({record.seed for record in records})),
        scale=Scale(first.primary, unit, first.higher_is_better),
        higher_is_better=first.higher_is_better,
        baseline=baseline,
        records=measured,
        teacher=teacher,
        margin=_margin(margin, first.primary, unit, [_score(record) for record in measured.values()]),
        influences=influences,
    )
    rows = _judged([_row(labels[key], group, reference) for key, group in groups.items()], reference)
    return Board(
        task=first.task,
        pair=first.pair,
        student=first.student,
        teachers=first.teachers,
        primary=first.primary,
        higher_is_better=first.higher_is_better,
        unit=unit,
        equivalence_margin=reference.margin,
        seeds=reference.seeds,
        teacher=_interval(teacher),
        baseline=baseline,
        has_baseline=bool(reference.records),
        rows=_ranked(rows, first.higher_is_better),
    )


def _margin(asked: float | Mapping[str, float] | None, metric: str, unit: str, baseline: Sequence[float]) -> float:
    own = asked.get(metric) if isinstance(asked, Mapping) else asked
    if own is not None:
        return own
    part = _MARGIN_PART * abs(statistics.fmean(baseline)) if baseline and unit != SHARE else 0.0
    return part or EQUIVALENCE_MARGIN


def _by_method(records: Sequence[Record]) -> dict[tuple[str, str], dict[int, Record]]:
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
    return groups


def _labels(groups: Mapping[tuple[str, str], Mapping[int, Record]]) -> dict[tuple[str, str], str]:
    labels = {}
    for key in groups:
        variants = [json.loads(params) for method, params in groups if method == key[0]]
        params = json.loads(key[1])
        differing = {n: v for n, v in params.items() if any(n not in other or other[n] != v for other in variants)}
        labels[key] = str(Spec(key[0], differing))
    return labels


def _row(label: str, group: Mapping[int, Record], reference: _Reference) -> Row:
    records = [group[seed] for seed in sorted(group)]
    done = {record.seed: record for record in records if _finished(record)}
    scores = {seed: _score(record) for seed, record in done.items()}
    baseline = {seed: _score(record) for seed, record in reference.records.items()}
    is_baseline = records[0].method == reference.baseline
    gains = {} if is_baseline else reference.gains(scores, baseline)
    counts, reasons = _outcomes(records, reference)
    effect = reference.effect(gains, done)
    kept = (scores, reference.teacher) if reference.higher_is_better else (reference.teacher, scores)
    return Row(
        label=label,
        method=records[0].method,
        family=records[0].family,
        control=records[0].control,
        params=records[0].params,
        counts=counts,
        reasons=reasons,
        fingerprints=tuple(record.fingerprint for record in records),
        scores=scores,
        gains=gains,
        score=_interval(scores),
        effect=effect,
        p_value=effect.p_value() if effect else None,
        retention=_ratio(*kept),
        gap_recovery=_ratio(gains, reference.gains(reference.teacher, baseline)),
        means=_means(list(done.values())),
        flops_ratio=_ratio(_column(done, "training_flops"), _column(reference.records, "training_flops")),
        seconds_ratio=_ratio(_column(done, "training_seconds"), _column(reference.records, "training_seconds")),
        ranked=set(done) == set(reference.seeds),
        verdict=_BASELINE_VERDICT,
    )


def _judged(rows: Sequence[Row], reference: _Reference) -> list[Row]:
    """The rows with their verdicts, the methods' p-values corrected for being several."""
    family = [row for row in rows if row.ranked and not row.control and row.p_value is not None]
    corrected = dict(zip((row.label for row in family), holm([row.p_value or 0.0 for row in family]), strict=True))
    judged = []
    for row in rows:
        p_value = corrected.get(row.label, row.p_value)
        verdict = row.verdict
        if not row.ranked:
            verdict = Verdict("unranked", "; ".join(row.reasons))
        elif row.method != reference.baseline:
            verdict = judge(row.effect, reference.baseline, reference.scale, reference.margin, row.done, p_value)
        judged.append(replace(row, p_value=p_value, verdict=verdict))
    return judged


def _ranked(rows: Sequence[Row], higher_is_better: bool) -> tuple[Row, ...]:
    def order(row: Row) -> tuple[bool, bool, float, str]:
        estimate = row.score.estimate if row.score else 0.0
        return (not row.ranked, row.score is None, -estimate if higher_is_better else estimate, row.label)

    ordered = sorted(rows, key=order)
    keys = [order(row)[:3] for row in ordered]
    return tuple(
        replace(row, rank=keys.index(key) + 1 if row.ranked else None) for row, key in zip(ordered, keys, strict=True)
    )


def _outcomes(records: Sequence[Record], reference: _Reference) -> tuple[dict[Outcome, int], tuple[str, ...]]:
    """How the seeds ended, and why those that did not finish did not."""
    counts: Counter[Outcome] = Counter()
    why: dict[str, list[int]] = defaultdict(list)
    for record in records:
        outcome = "failed" if record.status == "done" and not _finished(record) else record.status
        counts[outcome] += 1
        if outcome != "done":
            reason = record.reason or (f"no finite {record.primary}" if record.status == "done" else "no reason given")
            why[f"{outcome}: {reason}"].append(record.seed)
    if missing := sorted(set(reference.seeds) - {record.seed for record in records}):
        counts["missing"] = len(missing)
        why["not run"] = missing
    everywhere = len(reference.seeds)
    return dict(counts), tuple(
        said
        if len(seeds) == everywhere
        else f"{said} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"
        for said, seeds in why.items()
    )


def _finished(record: Record) -> bool:
    """Whether the trial is done and its score is a number: a NaN is a failure, whatever the status says."""
    return record.status == "done" and math.isfinite(record.metrics.get(record.primary, math.nan))


def _score(record: Record) -> float:
    return record.metrics[record.primary]


def _teacher_scores(records: Sequence[Record], baseline: str) -> dict[int, float]:
    """The score of the pair's teacher per seed.

    Methods may bring teachers of their own (born-again networks, ensembles), so the baseline's record has the say;
    where it has none, the value that most records agree on.
    """
    scores: dict[int, float] = {}
    for seed in sorted({record.seed for record in records}):
        seen = [(r.method == baseline, r.metrics.get(f"teacher_{r.primary}")) for r in records if r.seed == seed]
        values = [(own, value) for own, value in seen if value is not None and math.isfinite(value)]
        if trusted := [value for own, value in values if own] or [value for _, value in values]:
            scores[seed] = Counter(trusted).most_common(1)[0][0]
    return scores


def _means(records: Sequence[Record]) -> dict[str, float]:
    """Means of what every record has; a mean over those that happen to have a number would flatter."""
    tables = [{**record.measurements, **record.metrics} for record in records]
    names = [name for name in (tables[0] if tables else {}) if name != records[0].primary]
    columns = {name: [table.get(name, math.nan) for table in tables] for name in sorted(names)}
    return {name: statistics.fmean(values) for name, values in columns.items() if all(map(math.isfinite, values))}


def _column(records: Mapping[int, Record], name: str) -> dict[int, float]:
    tables = {seed: {**record.measurements, **record.metrics} for seed, record in records.items()}
    return {seed: table[name] for seed, table in tables.items() if math.isfinite(table.get(name, math.nan))}


def _interval(values: Mapping[int, float]) -> Interval | None:
    return mean_interval([values[seed] for seed in sorted(values)]) if values else None


def _ratio(above: Mapping[int, float], below: Mapping[int, float]) -> float | None:
    """Ratio of the means over their common seeds; None where there is none or the denominator is not positive."""
    seeds = sorted(above.keys() & below.keys())
    denominator = math.fsum(below[seed] for seed in seeds)
    return math.fsum(above[seed] for seed in seeds) / denominator if denominator > 0 else None
