"""Comparison: two runs of one suite, row by row: what changed, how surely, and what may be why."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.effects import Effect
from kdbench.analysis.statistics import Interval
from kdbench.analysis.verdict import Scale
from kdbench.errors import BadInput
from kdbench.measuring.record import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COSTS = ("training_flops", "parameters", "macs", "file_bytes")
_TIMES = ("latency_ms_p50", "peak_memory_bytes", "training_seconds")  # compared within one machine only


@dataclass(frozen=True)
class Side:
    """One of the two runs. `influences` as for `leaderboard`."""

    name: str
    leaderboard: Leaderboard
    records: Sequence[Record]
    influences: Callable[[Record], NDArray[np.floating] | None] = lambda record: None


@dataclass(frozen=True)
class Change:
    """One method with its parameters, in the old run and in the new one; None where a run does not have it.

    Attributes:
        old, new: the rows.
        gain: how much better the new score is (positive = better); None where either has no finished seed.
        paired: whether `gain` is over the same seeds, teachers, recipe and engine; else the runs' seeds are unrelated
            (Welch), which widens its interval.
        identical: whether both runs hold the very same trials.
        costs: old and new mean by name in the record; times only where both were taken on one machine.
    """

    label: str
    old: Row | None
    new: Row | None
    gain: Interval | None = None
    paired: bool = False
    identical: bool = False
    costs: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def cost_ratio(self, name: str) -> float | None:
        """New over old; None where it cannot be compared."""
        old, new = self.costs.get(name, (0.0, 0.0))
        return new / old if old > 0 else None


@dataclass(frozen=True)
class BoardChanges:
    """What changed on one task and pair; rows that both runs have first, in the new run's order."""

    task: str
    pair: str
    scale: Scale
    teacher: tuple[Interval | None, Interval | None]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Comparison:
    """Two runs of one suite.

    Attributes:
        old, new: the runs' names; `suites` what each ran.
        boards: the tasks and pairs that both have.
        missing: tasks and pairs that one of them lacks, in words.
        circumstances: what else differs between them (versions, machine, recipe), in words.
    """

    old: str
    new: str
    suites: tuple[str, str]
    boards: tuple[BoardChanges, ...]
    missing: tuple[str, ...]
    circumstances: tuple[str, ...]


def compare(old: Side, new: Side) -> Comparison:
    """What changed from `old` to `new`.

    Raises:
        BadInput: the runs cannot be compared, with the reason: other suites or major versions, no task and pair in
            common, or for a common one other data, another primary metric or another student.
    """
    _check_suites(old, new)
    boards = {(board.task, board.pair): board for board in old.leaderboard.boards}
    common = [(boards[key], board) for board in new.leaderboard.boards if (key := (board.task, board.pair)) in boards]
    if not common:
        raise BadInput(f"{old.name} and {new.name} cannot be compared: no task and pair is in both")
    for pair in common:
        _check_boards(old, new, *pair)
    return Comparison(
        old.name,
        new.name,
        (old.leaderboard.suite, new.leaderboard.suite),
        tuple(_board_changes(old, new, *pair) for pair in common),
        (*_missing(old, new), *_missing(new, old)),
        tuple(_circumstances(old.records, new.records)),
    )


def _check_suites(old: Side, new: Side) -> None:
    (name, _, version), (other, _, its) = (side.leaderboard.suite.partition("@") for side in (old, new))
    if name != other:
        raise BadInput(f"{old.name} and {new.name} cannot be compared: they ran different suites, {name} and {other}")
    if version.partition(".")[0] != its.partition(".")[0]:
        raise BadInput(
            f"{old.name} and {new.name} cannot be compared: {name} changed its major version, {version} and {its}",
            hint="a new major version is another experiment; run the older suite again, or compare runs of one major",
        )


def _check_boards(old: Side, new: Side, before: Board, after: Board) -> None:
    def refuse(what: str, *values: object) -> None:
        raise BadInput(
            f"{old.name} and {new.name} cannot be compared on {before.task}, {before.pair}: {what}: "
            f"{values[0]} in {old.name}, {values[1]} in {new.name}"
        )

    if before.primary != after.primary:
        refuse("other primary metrics", before.primary, after.primary)
    if before.student != after.student:
        refuse("other students", before.student, after.student)
    digests = [_said(side.records, "data", board) for side, board in ((old, before), (new, after))]
    if all(digests) and digests[0] != digests[1]:
        refuse("other data (digests of its examples and splits)", *digests)


def _said(records: Sequence[Record], key: str, board: Board) -> str:
    """The distinct values of one entry of the provenance over a board's records, shortened."""
    found = {str(record.provenance[key])[:12] for record in _of(records, board) if record.provenance.get(key)}
    return ", ".join(sorted(found))


def _of(records: Sequence[Record], board: Board) -> Iterator[Record]:
    return (record for record in records if (record.task, record.pair) == (board.task, board.pair))


def _missing(side: Side, other: Side) -> list[str]:
    theirs = {(board.task, board.pair) for board in other.leaderboard.boards}
    own = [(board.task, board.pair) for board in side.leaderboard.boards]
    return [f"{task}: {pair} is in {side.name} only" for task, pair in own if (task, pair) not in theirs]


def _board_changes(old: Side, new: Side, before: Board, after: Board) -> BoardChanges:
    rows = {_key(row): row for row in before.rows}
    changes = [_change(old, new, after, rows.pop(_key(row), None), row) for row in after.rows]
    gone = [Change(row.label, row, None) for row in rows.values()]
    return BoardChanges(
        after.task,
        after.pair,
        after.scale,
        (before.teacher, after.teacher),
        (*(each for each in changes if each.old), *(each for each in changes if not each.old), *gone),
    )


def _key(row: Row) -> tuple[str, str]:
    return row.method, json.dumps(dict(row.params), sort_keys=True)


def _change(old: Side, new: Side, board: Board, before: Row | None, after: Row) -> Change:
    if before is None:
        return Change(after.label, None, after)
    was, now = _by_seed(old, before), _by_seed(new, after)
    common = before.scores.keys() & after.scores.keys()
    paired = len(common) == min(len(before.scores), len(after.scores)) and all(
        _alike(was[seed], now[seed]) for seed in common
    )
    machines = {str(record.provenance.get("machine")) for record in (*was.values(), *now.values())}
    gain = None
    if before.scores and after.scores:
        gain = _paired(old, new, was, now, board, common) if paired else _unpaired(before, after, board.scale)
    compared = (*_COSTS, *_TIMES) if len(machines) == 1 else _COSTS
    return Change(
        label=after.label,
        old=before,
        new=after,
        gain=gain,
        paired=paired,
        identical=before.fingerprints == after.fingerprints,
        costs={
            name: (statistics.fmean(before.values[name].values()), statistics.fmean(after.values[name].values()))
            for name in compared
            if name in before.values and name in after.values
        },
    )


def _by_seed(side: Side, row: Row) -> dict[int, Record]:
    wanted = set(row.fingerprints)
    return {record.seed: record for record in side.records if record.fingerprint in wanted}


def _alike(was: Record, now: Record) -> bool:
    """Whether the same seed meant the same start, batches and teacher: only the method's own code may differ."""
    return all(was.provenance.get(key) == now.provenance.get(key) for key in ("recipe", "teachers", "engine"))


def _paired(
    old: Side, new: Side, was: Mapping[int, Record], now: Mapping[int, Record], board: Board, seeds: Iterable[int]
) -> Interval:
    """Over seeds and, where both runs know them, over test examples, as for the gains of a leaderboard."""
    sign = 1 if board.higher_is_better else -1
    seeds = sorted(seeds)
    gains = [sign * (now[seed].metrics[board.primary] - was[seed].metrics[board.primary]) for seed in seeds]
    pairs = [(new.influences(now[seed]), old.influences(was[seed])) for seed in seeds]
    return Effect.paired(gains, pairs, sign).interval()


def _unpaired(before: Row, after: Row, scale: Scale) -> Interval:
    """The difference of the means of unrelated seeds, with Welch's (1947) interval."""
    was, now = list(before.scores.values()), list(after.scores.values())
    sign, n = 1 if scale.higher_is_better else -1, min(len(was), len(now))
    gain = sign * (statistics.fmean(now) - statistics.fmean(was))
    if n < 2 or not any(statistics.pvariance(each) > 0 for each in (was, now)):
        return Interval(gain, math.nan, math.nan, n)  # no spread to judge by
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    ends = CompareMeans(DescrStatsW(now), DescrStatsW(was)).tconfint_diff(usevar="unequal")
    low, high = sorted(sign * float(end) for end in ends)
    return Interval(gain, low, high, n)


def _circumstances(old: Sequence[Record], new: Sequence[Record]) -> Iterator[str]:
    """What differs between the runs beside their methods, in words."""
    for words, read in _CIRCUMSTANCES.items():
        values = [", ".join(sorted({value for record in side if (value := read(record))})) for side in (old, new)]
        if all(values) and values[0] != values[1]:
            yield f"{words}: {values[0]}, then {values[1]}"
    methods = ({record.method: record.provenance.get("plugin") for record in side} for side in (old, new))
    was, now = methods
    changed = sorted(name for name in was.keys() & now.keys() if was[name] != now[name])
    if changed:
        yield f"source or version of the plugin differs: {', '.join(changed)}"


def _environment(name: str) -> Callable[[Record], str]:
    return lambda record: str(record.provenance.get("environment", {}).get(name) or "")


def _track(record: Record) -> str:
    return "tuned" if "tuning_flops" in record.metrics else "fixed"


_CIRCUMSTANCES: Mapping[str, Callable[[Record], str]] = {
    "track": _track,
    "minor version of the suite": lambda record: record.suite,
    "kdbench": _environment("kdbench"),
    "its engine's source": lambda record: str(record.provenance.get("engine") or "")[:12],
    "torch": _environment("torch"),
    "python": _environment("python"),
    "machine (times are not compared)": lambda record: str(record.provenance.get("machine") or ""),
}
