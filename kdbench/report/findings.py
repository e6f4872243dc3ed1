"""Claims, ranks over tasks, requirements and what changed between two runs, in a terminal; the caller prints them."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdbench.analysis.claims import Claim
from kdbench.analysis.columns import MISSING, ratio
from kdbench.analysis.comparison import BoardChanges, Change, Comparison
from kdbench.analysis.ranks import Ranking
from kdbench.analysis.requirements import Check
from kdbench.analysis.statistics import Interval

_ANSWERS = {
    "supported": "bold dodger_blue1",
    "mixed": "dodger_blue1",
    "inconclusive": "italic",
    "contradicted": "bold dark_orange",
    "not tested": "dim",
}


_LABEL = 20  # a method's name has this much room before it is broken
_WIDE = 100


def claims_table(claims: Sequence[Claim]) -> RenderableType:
    """What is commonly claimed of distillation: each with its answer, and the most telling evidence below it."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for claim in sorted(claims, key=lambda claim: claim.answer == "not tested"):
        tested = claim.answer != "not tested"
        said = Text.assemble((claim.claim, "bold" if tested else ""), "\n", claim.evidence[0])
        table.add_row(Text(claim.answer, style=_ANSWERS[claim.answer]), said, style="" if tested else "dim")
    title = Text("What is claimed of distillation, and what this run shows", style="bold")
    note = Text("All evidence: kdbench verdict --json", style="dim")
    return Group(title, Text(), table, Text(), note)


def ranking_table(ranking: Ranking) -> RenderableType:
    """Mean ranks over the tasks, best first, and which methods are not told apart."""
    table = _table("method", "mean\nrank")
    for label, rank in ranking.mean_ranks.items():
        table.add_row(Text(label), f"{rank:.2f}")
    said = [
        f"Critical difference (Nemenyi, 5 %): {ranking.critical_difference:.2f} ranks.",
        *(f"Not told apart: {', '.join(group)}." for group in ranking.alike),
    ]
    tasks = Text(f"Tasks: {'; '.join(ranking.tasks)}.", style="dim")
    return Group(
        Text("Over all tasks", style="bold"), Text(ranking.note), Text(), table, Text(), Text(" ".join(said)), tasks
    )


def checks_table(checks: Sequence[Check]) -> RenderableType:
    """One line per requirement, task and method: passed or failed, and what the run shows."""
    places = len({(check.task, check.pair) for check in checks}) > 1
    table = Table(box=box.HORIZONTALS, show_edge=False, pad_edge=False, header_style="bold")
    for header in ("", *(("task",) if places else ()), "method", "required", "found"):
        table.add_column(header, overflow="fold", no_wrap=header in ("", "required"))
    for check in checks:
        word = Text("pass", style="bold dodger_blue1") if check.passed else Text("FAIL", style="bold dark_orange")
        found = check.reason if check.value is None else f"{_plain(check.value)}, {check.reason}"
        place = (Text(f"{check.task}: {check.pair}"),) if places else ()
        table.add_row(word, *place, Text(check.label), Text(str(check.condition)), Text(found))
    passed = sum(check.passed for check in checks)
    summary = Text(f"{passed} of {len(checks)} requirements are met.", style="bold")
    return Group(table, Text(), summary)


def comparison_tables(comparison: Comparison, width: int = 80) -> RenderableType:
    """What changed from one run to another: a table per task and pair, then what else differs between the runs.

    Where there are few columns of text, latencies are left out.
    """
    timed = width >= _WIDE
    title = f"{comparison.old} ({comparison.suites[0]}) → {comparison.new} ({comparison.suites[1]})"
    parts: list[RenderableType] = [Text(title, style="bold")]
    for board in comparison.boards:
        parts += [Text(), Text(f"{board.task}: {board.pair}", style="bold"), _changes(board, timed)]
    unit = ", ".join(sorted({board.scale.unit_in_words for board in comparison.boards}))
    note = (
        f"change: {unit}, positive is better, with its 95 % interval; paired by seed, or ~ where the runs' seeds, "
        "teachers, recipe or engine differ (Welch) · cost: training FLOPs, new / old"
    ) + (" · ms: latency, new / old, within one machine" if timed else "")
    parts += [Text(), Text(note, style="dim")]
    if others := (*comparison.missing, *comparison.circumstances):
        parts += [Text(), Text("What else differs", style="bold"), *(Text(f"  {other}") for other in others)]
    return Group(*parts)


def _changes(board: BoardChanges, timed: bool) -> Table:
    table = _table("method", "old", "new", "change", "cost", *(("ms",) if timed else ()), "verdict")
    for change in board.changes:
        cost, latency = (ratio(change.cost_ratio(name)) for name in ("training_flops", "latency_ms_p50"))
        cells = [change.label, *_scores(change, board), cost, *([latency] if timed else []), _verdicts(change)]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _scores(change: Change, board: BoardChanges) -> list[str]:
    """The old and the new score, and the change between them."""
    scale, rows = board.scale, [row for each in board.changes for row in (each.old, each.new) if row]
    digits = scale.digits([row.score for row in rows])
    scores = [row.score if row else None for row in (change.old, change.new)]
    said = [MISSING if score is None else scale.number(score.estimate, digits) for score in scores]
    return [*said, "same trials" if change.identical else _signed(change, board)]


def _signed(change: Change, board: BoardChanges) -> str:
    gain, scale = change.gain, board.scale
    if gain is None:
        return MISSING
    digits = scale.digits([each.gain for each in board.changes if not each.identical])
    unsure, mean = "" if change.paired else "~", scale.number(gain.estimate, digits, sign=True)
    if not gain.bounded:
        return f"{unsure}{mean}"
    return f"{unsure}{mean} [{', '.join(scale.number(end, digits, sign=True) for end in (gain.low, gain.high))}]"


def _verdicts(change: Change) -> str:
    old, new = (row.verdict.label if row else "" for row in (change.old, change.new))
    if not old or not new:
        return f"{old or new} ({'old' if old else 'new'} run only)"
    return old if old == new else f"{old} → {new}"


def _plain(interval: Interval) -> str:
    """`0.00741 [0.0021, 0.0127]`; a count is a single number."""
    if not interval.half_width > 0:
        return f"{interval.estimate:.4g}"
    return f"{interval.estimate:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def _table(*headers: str) -> Table:
    table = Table(box=box.HORIZONTALS, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for header in headers:
        words = header in ("method", "verdict")
        table.add_column(
            header,
            justify="left" if words else "right",
            no_wrap=not words,
            overflow="fold",
            min_width=_LABEL if header == "method" else None,
        )
    return table
