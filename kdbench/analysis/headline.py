"""The headline: the answer to a suite's question in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.verdict import Label, Scale

QUESTION = "Does knowledge distillation really work here?"
FEW_SEEDS = 5  # below it a t interval is wide by nature (4.3 standard errors at 3 seeds, 2.8 at 5)


def headline(leaderboard: Leaderboard) -> str:
    """The answer to the suite's question, in plain words: one sentence per task and pair, and what tempers it."""
    if not leaderboard.boards:
        return f"{QUESTION} Nothing has run yet."
    answers = [answer(board) for board in leaderboard.boards]
    if len(answers) == 1:
        return f"{QUESTION} {answers[0]}"
    return "\n".join(
        [QUESTION, *(f"{b.task}, {b.pair}: {a}" for b, a in zip(leaderboard.boards, answers, strict=True))]
    )


def answer(board: Board) -> str:
    """The headline of one task and pair; controls are not counted."""
    methods = [row for row in board.rows if not row.control]
    if not methods:
        return "No distillation method was run."
    if not any(row.difference for row in methods):
        return f"It cannot be said: no method has a seed in common with {board.baseline}."
    groups = {label: [row for row in methods if row.verdict.label == label] for label in _ORDER}
    works, total = groups["works"], f"{len(methods)} method{'s' if len(methods) > 1 else ''}"
    if works:
        said = f"{len(works)} of {total} {'work' if len(works) > 1 else 'works'}: {_gains(works, board.scale)}"
    elif groups["inconclusive"] or groups["unranked"]:
        said = f"Not shown: none of {total} is proven to work"
    else:
        said = f"No: none of {total} works"
    others = [
        f"{len(rows)} {_SAID[label]}: {_names(rows)}" for label, rows in groups.items() if rows and label != "works"
    ]
    answered = "; ".join([said, *others]) + "."
    if groups["inconclusive"] and len(board.seeds) < FEW_SEEDS:
        seeds = f"{len(board.seeds)} seed{'s' if len(board.seeds) > 1 else ''}"
        answered += f" With {seeds} only large effects show: more seeds narrow the intervals."
    if ahead := _controls_ahead(board, methods):
        controls = "the control" if len(ahead) == 1 else "the controls"
        answered += f" Better than all of them: {controls} {_gains(ahead, board.scale)}."
    return answered


def _controls_ahead(board: Board, methods: Sequence[Row]) -> list[Row]:
    """The controls that surely beat the baseline, and every method in the mean."""
    best = max((row.effect.estimate for row in methods if row.ranked and row.effect), default=0.0)
    return [
        row
        for row in board.rows
        if row.control
        and not row.compression
        and row.verdict.label == "works"
        and row.effect
        and row.effect.estimate > best
    ]


_ORDER: tuple[Label, ...] = ("works", "control explains", "hurts", "no effect", "inconclusive", "unranked")
_SAID: dict[Label, str] = {
    "control explains": "better than the baseline, but no better than a control",
    "hurts": "worse than the baseline",
    "no effect": "without effect",
    "inconclusive": "inconclusive",
    "unranked": "unranked",
}


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(row.label for row in rows)


def _gains(rows: Sequence[Row], scale: Scale) -> str:
    """`kd (+1.90 points), rkd (+1.20)`; `kd (+1.90 cycles better), ...` where that is a lower score."""
    digits = scale.digits([row.difference for row in rows])
    gains = [scale.number(row.difference.estimate, digits, sign=True) if row.difference else "" for row in rows]
    gains[0] += f" {scale.unit_in_words}" + ("" if scale.higher_is_better else " better")
    return ", ".join(f"{row.label} ({gain})" for row, gain in zip(rows, gains, strict=True))
