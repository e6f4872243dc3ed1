"""Rows as MLflow shows them: rounded aggregates and the few words that make a run table readable."""

from __future__ import annotations

import math

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.columns import gain, score
from kdbench.store.mlflow_entries import MethodRun

_SHORT = {"accuracy": "acc"}  # the column heads of a run table are narrow


def method_runs(leaderboard: Leaderboard) -> list[MethodRun]:
    """One run per row of every board, in the order of the leaderboard, skipped methods too."""
    return [_method_run(board, row) for board in leaderboard.boards for row in board.rows]


def _method_run(board: Board, row: Row) -> MethodRun:
    name = _SHORT.get(board.primary, board.primary)
    return MethodRun(
        label=row.label,
        method=row.method,
        task=board.task,
        pair=board.pair,
        params=dict(row.params),
        family=row.family,
        metrics=_metrics(board, row, name),
        tags={
            name: score(row, board),
            "gain": gain(row, board),
            "verdict": row.verdict.label,
            "kind": _kind(row),
            "evidence": row.verdict.evidence,
            "status": row.status,
        },
        fingerprints=row.fingerprints,
    )


def _kind(row: Row) -> str:
    """What the row is, in a word or two: a leaderboard sorted by score mixes them."""
    return "compressed teacher" if row.compression else "control" if row.control else "method"


def _metrics(board: Board, row: Row, name: str) -> dict[str, float]:
    """What is known, rounded for reading: percent and percentage points where the primary metric is a share."""
    score_unit, gain_unit = ("_pct", "_pp") if board.scale.share else ("", "")
    factor, digits = board.scale.factor, 2 if board.scale.share else 4
    low, high = (row.difference.low, row.difference.high) if row.difference else (None, None)
    columns: dict[str, tuple[float | None, float, int]] = {
        "rank": (row.rank, 1, 0),
        f"{name}{score_unit}": (row.score.estimate if row.score else None, factor, digits),
        f"gain{gain_unit}": (row.difference.estimate if row.difference else None, factor, digits),
        f"gain_low{gain_unit}": (low, factor, digits),
        f"gain_high{gain_unit}": (high, factor, digits),
        "retention_pct": (row.retention, 100, 2),
        "agreement_pct": (row.means.get("agreement"), 100, 2),
        "ece": (row.means.get("ece"), 1, 4),
        "params_k": (row.means.get("parameters"), 1e-3, 1),
        "macs_M": (row.means.get("macs"), 1e-6, 2),
        "cpu_ms": (row.means.get("latency_ms_p50"), 1, 3),
        "train_s": (row.means.get("training_seconds"), 1, 1),
        "cost_x": (row.flops_ratio, 1, 2),
        "seeds": (row.done, 1, 0),
    }
    return {
        column: round(value * unit, places)
        for column, (value, unit, places) in columns.items()
        if value is not None and math.isfinite(value)
    }
