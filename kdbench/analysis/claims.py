"""Claims: what is commonly said of distillation, and what one run has to say about it (the protocol's table)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.differences import (
    CALIBRATION,
    COSTS,
    FIDELITY,
    LIKENESS,
    SALIENCY,
    SAME_COST,
    Measure,
    at_no_greater_cost,
    difference,
    interaction,
    interval_in_words,
    no_worse,
    over,
    smaller,
)
from kdbench.analysis.evidence import Answer, Comparison, Finding, Speaks, answer, sentences, together, weigh
from kdbench.analysis.ratios import ratio_interval

_OFFLINE = ("response", "feature", "relation")  # families that learn from the pair's teacher
_SIZE = Measure("file_bytes", "file size", "bytes", higher_is_better=False)
_SPENT = Measure("training_flops", "training FLOPs", "FLOPs", higher_is_better=False)


@dataclass(frozen=True)
class Claim:
    """One thing commonly said of distillation.

    Attributes:
        evidence: sentences with numbers and 95 % intervals, the most telling first; of a claim that is not tested, what
            the suite lacks.
        controls: the labels of what its methods were compared with; of a supported claim, what it survived.
    """

    claim: str
    answer: Answer
    evidence: tuple[str, ...]
    controls: tuple[str, ...] = ()


def claims(leaderboard: Leaderboard) -> tuple[Claim, ...]:
    """Every claim of the protocol, in its order.

    What a control stands for is read from what it declares and from what it cost, never from its name. Rows with
    missing trials are left out. Intervals are 95 %; what they decide is corrected for the number of methods that are
    compared in one respect with one reference (Holm 1979).
    """
    return tuple(_claim(said, test(leaderboard), lacks) for said, lacks, test in _CLAIMS)


def _claim(said: str, findings: Sequence[Finding], lacks: str) -> Claim:
    if not findings:
        return Claim(said, "not tested", (f"not tested by this suite: {lacks}",))
    controls = tuple(dict.fromkeys(label for each in findings for label in each.controls))
    return Claim(said, answer(findings), sentences(findings), controls)


def _rows(leaderboard: Leaderboard, *families: str) -> Iterator[tuple[str, Board, Row]]:
    """The ranked rows of some families (of all distillation methods, where none is given), with where they stand."""
    for board in leaderboard.boards:
        for row in board.rows:
            if row.ranked and (row.family in families if families else not row.control):
                yield _place(leaderboard, board), board, row


def _place(leaderboard: Leaderboard, board: Board) -> str:
    """`digits, big -> small: ` where there are several boards, and nothing where there is one."""
    return f"{board.task}, {board.pair}: " if len(leaderboard.boards) > 1 else ""


def _row(board: Board, label: str) -> Row | None:
    return next((row for row in board.rows if row.label == label), None)


def _baseline(board: Board) -> Row | None:
    return next((row for row in board.rows if row.method == board.baseline), None)


def _judged(leaderboard: Leaderboard, *families: str) -> list[Finding]:
    """The verdicts as findings: better than the baseline and than every control that applies, or not."""
    speaks: dict[str, Speaks] = {"works": "for", "inconclusive": "open"}
    return [
        Finding(
            f"{where}{row.label}: {row.verdict.label}, {row.verdict.evidence}",
            speaks.get(row.verdict.label, "against"),
            (board.baseline, *row.against),
        )
        for where, board, row in _rows(leaderboard, *families)
    ]


def _keeps_accuracy(leaderboard: Leaderboard) -> list[Finding]:
    rows = _rows(leaderboard, *_OFFLINE)
    return weigh([no_worse(where, board, row, f"teacher_{board.primary}", "the teacher") for where, board, row in rows])


def _fits_ensemble(leaderboard: Leaderboard) -> list[Finding]:
    rows = _rows(leaderboard, "ensemble")
    return weigh(
        [no_worse(where, board, row, f"own_teacher_{board.primary}", "the ensemble") for where, board, row in rows]
    )


def _generalises(leaderboard: Leaderboard) -> list[Finding]:
    compared = []
    for where, board, row in _rows(leaderboard):
        words = f"{board.primary.replace('_', ' ')} on corrupted inputs"
        corrupted = Measure(f"corrupted_{board.primary}", words, board.unit, board.higher_is_better)
        if baseline := _baseline(board):
            compared.append(difference(where, row, baseline, corrupted))
    return _judged(leaderboard) + weigh(compared)


def _helps_with_few_data(leaderboard: Leaderboard) -> list[Finding]:
    """The gain at the smallest part of the training set against that at the largest: parts are nested by seed."""
    sizes: dict[tuple[str, str], list[Board]] = defaultdict(list)
    for board in sorted(leaderboard.boards, key=lambda board: board.train_fraction):
        sizes[board.data_set, board.pair].append(board)
    compared = []
    for boards in sizes.values():
        for label in [row.label for row in boards[0].rows if row.family in _OFFLINE]:
            rows = [row for board in boards if (row := _row(board, label)) and row.ranked]
            if len(boards) > 1 and len(rows) == len(boards):
                gains = [
                    f"{interval_in_words(row.difference, board.scale)} at {100 * board.train_fraction:g} %"
                    for board, row in zip(boards, rows, strict=True)
                    if row.difference
                ]
                compared.append(interaction((boards[0], boards[-1]), (rows[0], rows[-1]), ", ".join(gains)))
    return weigh(compared)


def _dark_knowledge(leaderboard: Leaderboard) -> list[Finding]:
    """Soft targets against those of the same teacher, robbed of what they say of the single example.

    A method must beat all such controls: the mean answer to a class is harder to beat than answers to other examples.
    """
    compared: dict[str, list[Comparison]] = defaultdict(list)
    for where, board, row in _rows(leaderboard, "response"):
        for label, effect in row.against.items():
            control = _row(board, label)
            if control and control.without_dark_knowledge:
                compared[where + row.label].append(over(where, board, row, label, effect))
    found = iter(weigh([each for rows in compared.values() for each in rows]))
    return [together(list(islice(found, len(rows)))) for rows in compared.values()]


def _like_the_teacher(leaderboard: Leaderboard, measures: Sequence[Measure]) -> list[Finding]:
    """Against students that never saw this teacher: the controls of likeness, or without any the baseline."""
    return weigh(
        [
            difference(where, row, other, measure)
            for where, board, row in _rows(leaderboard, *_OFFLINE)
            for label in row.fidelity_controls or (board.baseline,)
            if (other := _row(board, label))
            for measure in measures
        ]
    )


def _better_calibrated(leaderboard: Leaderboard) -> list[Finding]:
    rows = [(where, row, _baseline(board)) for where, board, row in _rows(leaderboard)]
    return weigh([difference(where, row, other, m) for where, row, other in rows if other for m in CALIBRATION])


def _faster_and_smaller(leaderboard: Leaderboard) -> list[Finding]:
    """What the deployed student costs: alike for all methods, so it is read from the baseline's row."""
    found = []
    for board in leaderboard.boards:
        costs: dict[Speaks, list[str]] = defaultdict(list)
        for name in COSTS:
            if (row := _baseline(board)) and (cost := smaller(row, name)):
                costs[cost.speaks].append(cost.said)
        found += [
            Finding(f"{_place(leaderboard, board)}of the teacher's, the student has {', '.join(said)}", speaks)
            for speaks, said in costs.items()
        ]
    return found


def _beats_compression(leaderboard: Leaderboard) -> list[Finding]:
    return weigh(
        [
            at_no_greater_cost(where, board, row, rival, _SIZE)
            for where, board, row in _rows(leaderboard, *_OFFLINE)
            for rival in board.rows
            if rival.ranked and rival.family == "compression"
        ]
    )


def _needs_no_teacher(leaderboard: Leaderboard) -> list[Finding]:
    return weigh(
        [
            at_no_greater_cost(where, board, row, rival, _SPENT, board.equivalence_margin)
            for where, board, row in _rows(leaderboard, "online")
            for rival in board.rows
            if rival.ranked and rival.family == "response"
        ]
    )


def _pays(leaderboard: Leaderboard) -> list[Finding]:
    """Against controls that spent as many training FLOPs as the method, and none of them on a teacher."""
    compared = []
    for where, board, row in _rows(leaderboard):
        for label, effect in row.against.items():
            control = _row(board, label)
            if control and not any(control.values.get("teacher_flops", {0: 1.0}).values()):
                spent = ratio_interval(*(each.values.get(_SPENT.name, {}) for each in (control, row)))
                if spent and spent.estimate >= 1 / SAME_COST:
                    compared.append(over(where, board, row, label, effect))
    return weigh(compared)


_NO_TEACHER_METHOD = "it finished no method that learns from the pair's teacher"
_CLAIMS: tuple[tuple[str, str, Callable[[Leaderboard], list[Finding]]], ...] = (
    ("the student keeps the teacher's accuracy", _NO_TEACHER_METHOD, _keeps_accuracy),
    ("it generalises better than training alone", "it finished no distillation method", _generalises),
    (
        "it helps most when data are few",
        "it finished no method on two or more parts of one training set (suite field train_fractions)",
        _helps_with_few_data,
    ),
    (
        "soft targets carry dark knowledge",
        "it finished no method on soft targets beside a control without the teacher's word on single examples",
        _dark_knowledge,
    ),
    (
        "the student learns the teacher's features and relations",
        "its records have no similarity of features or distances to the teacher's",
        lambda leaderboard: _like_the_teacher(leaderboard, LIKENESS),
    ),
    (
        "the student matches the teacher (fidelity)",
        "its records have no agreement with the teacher",
        lambda leaderboard: _like_the_teacher(leaderboard, FIDELITY),
    ),
    ("it is better calibrated", "its records have no calibration error or likelihood", _better_calibrated),
    (
        "it is more interpretable",
        "its records have no agreement of saliency maps with the teacher's",
        lambda leaderboard: _like_the_teacher(leaderboard, SALIENCY),
    ),
    ("it runs faster and smaller", "its records do not have the teacher's costs", _faster_and_smaller),
    (
        "it beats pruning or quantising the teacher to the same cost",
        "it finished no method beside a pruned or quantised teacher",
        _beats_compression,
    ),
    (
        "self-distillation improves a network of the same size",
        "it finished no method of self-distillation",
        lambda leaderboard: _judged(leaderboard, "self"),
    ),
    (
        "online distillation needs no teacher",
        "it finished no online method beside one that learns from a teacher's answers",
        _needs_no_teacher,
    ),
    ("an ensemble fits in one student", "it finished no student of an ensemble", _fits_ensemble),
    (
        "it pays",
        "it finished no control that spends a method's training FLOPs, the teacher's passes included, on labels alone",
        _pays,
    ),
)
