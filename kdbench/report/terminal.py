"""The leaderboard and the verdict in a terminal, as rich renderables; the caller prints them.

Nothing is said by colour alone, and the colours (blue for good, orange for bad) stay apart for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.columns import Column, columns, magnitude, score_header, teacher_score
from kdbench.analysis.headline import headline

_STYLES = {
    "works": "bold dodger_blue1",
    "control explains": "dodger_blue1",
    "hurts": "bold dark_orange",
    "no effect": "",
    "inconclusive": "italic",
    "unranked": "dark_orange",
    "baseline": "",
}
_LONGEST_LABEL = 20  # a longer one is broken before its parameters, so that numbers keep their room


def leaderboard_table(board: Board, width: int = 80) -> RenderableType:
    """One board in `width` columns of text: the teacher, the methods, the controls, then what compresses the teacher.

    Where space is short, whole columns are left out, the least important first; no number is ever truncated.
    """
    shown, gap = _fitting(board, width)
    table = Table(box=box.HORIZONTALS, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0), header_style="bold")
    for column in shown:
        text = column.header in ("method", "verdict")
        table.add_column(
            Text(column.header if "\n" in column.header else f"\n{column.header}"),
            justify="left" if text else "right",
            no_wrap=column.header != "method",
            overflow="fold",
        )
    methods = [row for row in board.rows if not row.control]
    controls = [row for row in board.rows if row.control and not row.compression]
    compressions = [row for row in board.rows if row.compression]
    if board.teacher is not None:
        table.add_row(*_teacher_cells(board, shown), style="italic")
        table.add_section()
    for row in methods:
        table.add_row(*(_cell(column, row) for column in shown))
    table.add_section()
    for group in (controls, compressions):
        for row in group:
            table.add_row(*(_cell(column, row) for column in shown), style="dim")
        table.add_section()
    return Group(*_title(board, shown), table, Text(), _legend(board, shown))


def verdict_panel(leaderboard: Leaderboard) -> RenderableType:
    """The answer in one sentence, then the evidence for every method's verdict, in a frame as wide as the console."""
    parts: list[RenderableType] = [Text(headline(leaderboard), style="bold")]
    for board in leaderboard.boards:
        evidence = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        evidence.add_column(overflow="fold", max_width=_LONGEST_LABEL)
        evidence.add_column(no_wrap=True)
        evidence.add_column(overflow="fold")
        for row in (row for row in board.rows if not row.control):
            verdict = row.verdict
            label = Text(_broken(row.label))
            evidence.add_row(label, Text(verdict.label, style=_STYLES[verdict.label]), Text(verdict.evidence))
        parts.append(Text())
        if len(leaderboard.boards) > 1:
            parts.append(Text(f"{board.task}: {board.pair}", style="bold"))
        parts.append(evidence)
    if any(len(board.rows) > 2 for board in leaderboard.boards):
        note = "Verdicts are corrected for comparing several methods (Holm); the intervals shown are not."
        parts += [Text(), Text(note, style="dim")]
    return Panel(Group(*parts), title="Verdict", title_align="left", box=box.ROUNDED, padding=(0, 1))


def _title(board: Board, shown: Sequence[Column]) -> list[Text]:
    """Where these numbers come from; and the size of the student, if all share it and its columns had no room."""
    seeds = f"{len(board.seeds)} seed{'s' if len(board.seeds) != 1 else ''}"
    lines = [Text(f"{board.task}: {board.pair}, {seeds}", style="bold")]
    headers = {column.header for column in shown}
    sizes = {(row.means.get("parameters"), row.means.get("macs")) for row in board.rows if row.score}
    if len(sizes) == 1 and None not in (size := sizes.pop()) and not {"params", "MACs"} <= headers:
        parameters, macs = size
        lines.append(Text(f"student {board.student}: {magnitude(parameters)} parameters, {magnitude(macs)} MACs"))
    return [*lines, Text()]


def _legend(board: Board, shown: Sequence[Column]) -> Text:
    """What the columns mean, in as few words as will do; their units are in the headers."""
    names = {column.header: column.title.removesuffix(" %").removesuffix(" ↓").removesuffix(" %") for column in shown}
    meanings = [f"{names[column.header]}: {column.meaning}" for column in shown if column.meaning]
    if any(row.control for row in board.rows):
        meanings.append("# counts controls too, below the rule")
    if any(row.compression for row in board.rows):
        meanings.append("last: the teacher itself, made smaller")
    return Text(" · ".join(meanings), style="dim")


def _cell(column: Column, row: Row) -> Text:
    text = column.cell(row)
    if column.header == "method":
        return Text(_broken(text), style="bold" if row.rank == 1 else "")
    return Text(text, style=_STYLES[row.verdict.label] if column.header == "verdict" else "")


def _teacher_cells(board: Board, shown: Sequence[Column]) -> list[str]:
    return ["", "teacher", teacher_score(board), *[""] * (len(shown) - 3)]


def _fitting(board: Board, width: int) -> tuple[list[Column], int]:
    """The columns that fit, and the gap between them: as many columns as possible, then as much air."""
    shown = list(columns(board))
    widths = [_width(column, board) for column in shown]
    while True:
        for gap in (2, 1):
            if sum(widths) + gap * (len(shown) - 1) + gap - 1 <= width:
                return shown, gap
        least = max(range(len(shown)), key=lambda place: shown[place].rank)
        if shown[least].rank == 0:
            return shown, 1
        del shown[least], widths[least]


def _width(column: Column, board: Board) -> int:
    cells = [column.header, *(column.cell(row) for row in board.rows)]
    if column.header == "method":
        cells = [_broken(cell) for cell in cells]
    if column.header == score_header(board):
        cells.append(teacher_score(board))
    return max(cell_len(line) for cell in cells for line in cell.split("\n"))


def _broken(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label.replace("[", "\n[", 1)
