"""Tables: a leaderboard as data frame, JSON, CSV and Markdown; machines get full precision, people rounded numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.claims import claims
from kdbench.analysis.columns import columns, score_header, teacher_score
from kdbench.analysis.comparison import Change, Comparison
from kdbench.analysis.headline import headline
from kdbench.analysis.requirements import Check
from kdbench.analysis.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd


def to_frame(leaderboard: Leaderboard) -> pd.DataFrame:
    """One line per row of every board, flat; the columns that identify it first, the means of all metrics last.

    Scores are in the metric's own unit, gains oriented so that positive is better; what is unknown is missing.
    """
    import pandas as pd

    lines = []
    for board in leaderboard.boards:
        where = {"suite": leaderboard.suite, "task": board.task, "pair": board.pair, "student": board.student}
        teacher = _interval("teacher", board.teacher)
        for row in board.rows:
            facts = _facts(row)
            facts |= {name: json.dumps(facts[name], sort_keys=True) for name in ("params", "counts")}
            facts |= {name: "; ".join(facts[name]) for name in ("reasons", "fingerprints")}
            means = facts.pop("means")
            lines.append({**where, "primary": board.primary, **facts, **teacher, **means})
    frame = pd.DataFrame(lines)
    return frame.astype({"rank": "Int64"}) if lines else frame


def to_csv(leaderboard: Leaderboard) -> str:
    """The frame as CSV, empty where a value is missing."""
    return to_frame(leaderboard).to_csv(index=False)


def to_json(leaderboard: Leaderboard) -> str:
    """The boards with their rows, as strict JSON: null where a number is unknown."""
    return _strict(
        {
            "suite": leaderboard.suite,
            "boards": [
                {
                    **_place(board),
                    "student": board.student,
                    "teachers": board.teachers,
                    **_interval("teacher", board.teacher),
                    "primary": board.primary,
                    "higher_is_better": board.higher_is_better,
                    "unit": board.unit,
                    "equivalence_margin": board.equivalence_margin,
                    "baseline": board.baseline,
                    "seeds": board.seeds,
                    "rows": [_facts(row) for row in board.rows],
                }
                for board in leaderboard.boards
            ],
        }
    )


def verdicts_to_json(leaderboard: Leaderboard) -> str:
    """The headline, per method its verdict with the evidence, and the claims with all of theirs, as strict JSON."""
    return _strict(
        {
            "suite": leaderboard.suite,
            "headline": headline(leaderboard),
            "verdicts": [
                {
                    **_place(board),
                    "method": row.method,
                    "label": row.label,
                    "control": row.control,
                    "verdict": row.verdict.label,
                    "evidence": row.verdict.evidence,
                    "unit": board.unit,
                    "equivalence_margin": board.equivalence_margin,
                    **_interval("gain", row.difference),
                    "p_value": row.p_value,
                    "detectable_gain": row.effect.detectable() if row.effect else None,
                    "paired_seeds": list(row.gains),
                }
                for board in leaderboard.boards
                for row in board.rows
            ],
            "claims": [asdict(claim) for claim in claims(leaderboard)],
        }
    )


def checks_to_json(leaderboard: Leaderboard, checks: Sequence[Check]) -> str:
    """Whether all requirements are met, and each with what the run shows, as strict JSON."""
    return _strict(
        {
            "suite": leaderboard.suite,
            "passed": all(check.passed for check in checks),
            "checks": [
                {
                    "task": check.task,
                    "pair": check.pair,
                    "method": check.label,
                    **asdict(check.condition),
                    "passed": check.passed,
                    **_interval("value", check.value),
                    "reason": check.reason,
                }
                for check in checks
            ],
        }
    )


def comparison_to_json(comparison: Comparison) -> str:
    """What changed between two runs, as strict JSON: gains positive = better, costs as [old, new]."""
    return _strict(
        {
            "old": comparison.old,
            "new": comparison.new,
            "suites": comparison.suites,
            "boards": [
                {
                    "task": board.task,
                    "pair": board.pair,
                    "primary": board.scale.metric,
                    "higher_is_better": board.scale.higher_is_better,
                    "unit": board.scale.unit,
                    "changes": [_changed(change) for change in board.changes],
                }
                for board in comparison.boards
            ],
            "missing": comparison.missing,
            "circumstances": comparison.circumstances,
        }
    )


def _changed(change: Change) -> dict[str, Any]:
    facts: dict[str, Any] = {"label": change.label}
    for name, row in (("old", change.old), ("new", change.new)):
        facts[name] = row and {"verdict": row.verdict.label, "seeds": row.done, **_interval("score", row.score)}
    interval = _interval("change", change.gain)
    return {**facts, **interval, "paired": change.paired, "identical": change.identical, "costs": dict(change.costs)}


def to_markdown(leaderboard: Leaderboard) -> str:
    """One pipe table per board, rounded for reading, with every column."""
    return "\n\n".join(_board_to_markdown(board) for board in leaderboard.boards)


def _board_to_markdown(board: Board) -> str:
    shown = columns(board)
    headers = [column.title for column in shown]
    lines = [[column.cell(row) for column in shown] for row in board.rows]
    if board.teacher is not None:
        lines.insert(0, ["", "*teacher*", f"*{teacher_score(board)}*"] + [""] * (len(shown) - 3))
    seeds = f"{len(board.seeds)} seed{'s' if len(board.seeds) != 1 else ''}"
    title = f"**{board.task}: {board.pair}** ({score_header(board)}, {seeds})"
    return f"{title}\n\n{pipes(headers, lines)}"


def pipes(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [headers, ["---"] * len(headers), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _place(board: Board) -> dict[str, str]:
    return {"task": board.task, "pair": board.pair}


def _facts(row: Row) -> dict[str, Any]:
    return {
        "rank": row.rank,
        "label": row.label,
        "method": row.method,
        "params": dict(row.params),
        "family": row.family,
        "control": row.control,
        "ranked": row.ranked,
        "verdict": row.verdict.label,
        "evidence": row.verdict.evidence,
        "seeds": row.done,
        **_interval("score", row.score),
        **_interval("gain", row.difference),
        "p_value": row.p_value,
        "retention": row.retention,
        "gap_recovery": row.gap_recovery,
        "flops_ratio": row.flops_ratio,
        "seconds_ratio": row.seconds_ratio,
        "counts": dict(row.counts),
        "reasons": row.reasons,
        "fingerprints": row.fingerprints,
        "means": dict(row.means),
    }


def _interval(name: str, interval: Interval | None) -> dict[str, float | None]:
    ends = (interval.estimate, interval.low, interval.high) if interval else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _strict(value: Any) -> str:
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same value with null for NaN and infinity, which JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
