"""Requirements: what a student must reach before it is deployed, as people write it, and whether a run shows it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.ratios import ratio_interval
from kdbench.analysis.statistics import Interval, mean_interval, paired_differences
from kdbench.errors import BadInput, UnknownName

WORKS = "works"
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {"<=": le, ">=": ge, "<": lt, ">": gt}
_CONDITION = re.compile(r"\s*(?P<quantity>[^\s<>=:,][^<>=:,]*?)\s*(?P<operator><=|>=|<|>)\s*(?P<bound>[^\s<>=:,]+)\s*")
_FORM = (
    "write METHOD:CONDITION,... with conditions like accuracy_drop<=0.01, latency_ratio<=0.5, gain>0 or works; "
    "operators: <= >= < >"
)
# Of the student over the pair's teacher, whose value has the same name after "teacher_".
_RATIOS: Mapping[str, str] = {
    "latency_ratio": "latency_ms_p50",
    "parameters_ratio": "parameters",
    "macs_ratio": "macs",
    "size_ratio": "file_bytes",
    "memory_ratio": "peak_memory_bytes",
}
_COUNTED = ("parameters", "macs", "flops", "file_bytes")  # exact: one seed says all


@dataclass(frozen=True)
class Condition:
    """A quantity and the bound that it must keep; `works` has no bound."""

    quantity: str
    operator: str = ""
    bound: float = math.nan

    def __str__(self) -> str:
        return f"{self.quantity} {self.operator} {self.bound:g}" if self.operator else self.quantity

    def holds(self, value: float) -> bool:
        """Whether `value` keeps the bound."""
        return _OPERATORS[self.operator](value, self.bound)


@dataclass(frozen=True)
class Requirement:
    """What is required of one method, by its label or its unambiguous name."""

    method: str
    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return f"{self.method}:{','.join(str(condition).replace(' ', '') for condition in self.conditions)}"

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Reads `METHOD:CONDITION,...`; the method may have parameters: `kd[temperature=2.0]:works`.

        Raises:
            BadInput: the text has another form.
        """
        method, colon, conditions = text.rpartition(":")  # a method's name and parameters may hold colons too
        if not colon or not method.strip():
            raise BadInput(f"cannot read the requirement {text!r:.100}", hint=_FORM)
        return cls(method.strip(), tuple(_condition(part, text) for part in conditions.split(",")))


@dataclass(frozen=True)
class Check:
    """One condition on one task and pair.

    Attributes:
        value: what the run shows; None for `works` and where it shows nothing.
        reason: why it failed, or how it was judged, in words.
    """

    task: str
    pair: str
    label: str
    condition: Condition
    passed: bool
    value: Interval | None
    reason: str


def check(leaderboard: Leaderboard, requirements: Sequence[Requirement], confident: bool = False) -> tuple[Check, ...]:
    """Whether every requirement is met on every task and pair: by the estimates, or where `confident` by the worse ends
    of their 95 % intervals.

    Raises:
        UnknownName: no row bears the method's name, or no row of it has the quantity; with the choices.
        BadInput: the name stands for several rows.
    """
    if not leaderboard.boards:
        raise BadInput("there is no result to check yet")
    checks = []
    for requirement in requirements:
        rows = [_row(board, requirement.method, leaderboard) for board in leaderboard.boards]
        places = list(zip(leaderboard.boards, rows, strict=True))
        for condition in requirement.conditions:
            _known(places, condition, requirement)
            checks += [_check(board, row, requirement.method, condition, confident) for board, row in places]
    return tuple(checks)


def _condition(text: str, whole: str) -> Condition:
    if text.strip() == WORKS:
        return Condition(WORKS)
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise BadInput(f"cannot read the condition {text.strip()!r:.60} in {whole!r:.100}", hint=_FORM)
    try:
        bound = float(match["bound"])
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise BadInput(
            f"{match['bound']!r:.40} in {whole!r:.100} is no number", hint="shares are written 0.01, not 1 %"
        )
    return Condition(match["quantity"], match["operator"], bound)


def _row(board: Board, method: str, leaderboard: Leaderboard) -> Row | None:
    """The row of a label or a method's name; None where another board has it and this one does not."""
    found = [row for row in board.rows if row.label == method] or [row for row in board.rows if row.method == method]
    if len(found) > 1:
        labels = ", ".join(sorted(row.label for row in found))
        raise BadInput(f"'{method}' stands for several rows on {board.task}", hint=f"choose one of: {labels}")
    if not found and not any(method in (row.label, row.method) for each in leaderboard.boards for row in each.rows):
        raise UnknownName("method", method, {row.label for each in leaderboard.boards for row in each.rows})
    return found[0] if found else None


def _known(places: Sequence[tuple[Board, Row | None]], condition: Condition, requirement: Requirement) -> None:
    """Refuses what no board could know: a misspelt quantity must not pass for a failed one."""
    choices = {WORKS}.union(*(quantities(board, row) for board, row in places if row))
    if condition.quantity not in choices and any(row and row.ranked for _, row in places):
        raise UnknownName(f"quantity of {requirement.method}", condition.quantity, choices)


def _check(board: Board, row: Row | None, method: str, condition: Condition, confident: bool) -> Check:
    def ended(passed: bool, reason: str, value: Interval | None = None) -> Check:
        return Check(board.task, board.pair, row.label if row else method, condition, passed, value, reason)

    if row is None:
        return ended(False, "it was not run here")
    if not row.ranked:
        return ended(False, f"unranked: {'; '.join(row.reasons)}")
    if condition.quantity == WORKS:
        return ended(row.verdict.label == WORKS, f"{row.verdict.label}: {row.verdict.evidence}")
    value = _value(board, row, condition.quantity)
    if value is None:
        return ended(False, "not measured here")
    if not confident:
        return ended(condition.holds(value.estimate), "by the estimate", value)
    if not value.bounded:
        return ended(False, "one seed has no interval to be confident by", value)
    upper = condition.operator in ("<", "<=")
    end = "upper" if upper else "lower"
    return ended(condition.holds(value.high if upper else value.low), f"by the {end} end of its 95 % interval", value)


def quantities(board: Board, row: Row) -> set[str]:
    """Every quantity that can be required of a row: those that its records can tell."""
    named = {f"{board.primary}_drop", "gain", "retention", "gap_recovery", *_RATIOS, board.primary, *row.values}
    return {name for name in named if _value(board, row, name) is not None}


def _value(board: Board, row: Row, quantity: str) -> Interval | None:
    if quantity in _RATIOS:
        name = _RATIOS[quantity]
        return _exact(ratio_interval(row.values.get(name, {}), row.values.get(f"teacher_{name}", {})), name)
    teacher = row.values.get(f"teacher_{board.primary}", {})
    better, worse = (row.scores, teacher) if board.higher_is_better else (teacher, row.scores)
    if quantity == f"{board.primary}_drop":
        return _mean(paired_differences(worse, better))
    if quantity == "gain":
        return row.difference
    if quantity == "retention":
        return ratio_interval(better, worse)
    if quantity == "gap_recovery":
        return ratio_interval(row.gains, _gaps(board, row, teacher))
    values = row.scores if quantity == board.primary else row.values.get(quantity, {})
    return _exact(_mean(values), quantity)


def _gaps(board: Board, row: Row, teacher: Mapping[int, float]) -> dict[int, float]:
    """By how much the teacher beats the baseline, per seed: its gain, less what it has over the row."""
    sign = 1 if board.higher_is_better else -1
    ahead = paired_differences(teacher, row.scores)
    return {seed: gain + sign * ahead[seed] for seed, gain in row.gains.items() if seed in ahead}


def _mean(values: Mapping[int, float]) -> Interval | None:
    return mean_interval([values[seed] for seed in sorted(values)]) if values else None


def _exact(interval: Interval | None, name: str) -> Interval | None:
    """A count does not vary: its interval is a point, of one seed too."""
    if interval is None or name not in _COUNTED or interval.half_width > 0:
        return interval
    return Interval(interval.estimate, interval.estimate, interval.estimate, interval.n)
