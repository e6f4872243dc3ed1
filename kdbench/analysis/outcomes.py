"""What became of a method's trials: which of them finished, and their numbers by seed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from kdbench.analysis.board import Outcome
from kdbench.measuring.record import Record


def finished(record: Record) -> bool:
    """Whether the trial is done and its score is a number: a NaN is a failure, whatever the status says."""
    return record.status == "done" and math.isfinite(record.metrics.get(record.primary, math.nan))


def score(record: Record) -> float:
    """The primary metric of a finished trial, in its own unit."""
    return record.metrics[record.primary]


def outcomes(records: Sequence[Record], wanted: Sequence[int]) -> tuple[dict[Outcome, int], tuple[str, ...]]:
    """How a method's trials on the seeds `wanted` ended, and why those that did not finish did not."""
    counts: Counter[Outcome] = Counter()
    why: dict[str, list[int]] = defaultdict(list)
    for record in records:
        outcome = "failed" if record.status == "done" and not finished(record) else record.status
        counts[outcome] += 1
        if outcome != "done":
            reason = record.reason or (f"no finite {record.primary}" if record.status == "done" else "no reason given")
            why[f"{outcome}: {reason}"].append(record.seed)
    if missing := sorted(set(wanted) - {record.seed for record in records}):
        counts["missing"] = len(missing)
        why["not run"] = missing
    return dict(counts), tuple(
        said
        if len(seeds) == len(wanted)
        else f"{said} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"
        for said, seeds in why.items()
    )


def teacher_scores(records: Sequence[Record], baseline: str) -> dict[int, float]:
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


def values(records: Mapping[int, Record]) -> dict[str, dict[int, float]]:
    """Every metric and measurement by name, per seed that has a finite one."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for seed in sorted(records):
        for name, value in {**records[seed].measurements, **records[seed].metrics}.items():
            if math.isfinite(value):
                found[name][seed] = value
    return {name: found[name] for name in sorted(found)}


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> float | None:
    """Ratio of the means over their common seeds; None where there is none or the denominator is not positive."""
    seeds = sorted(above.keys() & below.keys())
    denominator = math.fsum(below[seed] for seed in seeds)
    return math.fsum(above[seed] for seed in seeds) / denominator if denominator > 0 else None
