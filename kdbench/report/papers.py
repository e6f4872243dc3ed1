"""Tables for papers: a run's leaderboards and claims in Markdown and in LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kdbench.analysis.board import Board, Leaderboard, Row
from kdbench.analysis.claims import Claim
from kdbench.analysis.columns import MISSING, columns, teacher_score
from kdbench.analysis.tables import pipes, to_markdown

_OPTIONAL = 5  # columns that may be left out this soon are left out: a page is narrow

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
}


def markdown_tables(leaderboard: Leaderboard, claims: Sequence[Claim]) -> str:
    """The leaderboards, then what each claim comes to."""
    said = pipes(["claim", "answer", "evidence"], [[claim.claim, claim.answer, _first(claim)] for claim in claims])
    return "\n\n".join([to_markdown(leaderboard), *([said] if claims else [])]) + "\n"


def latex_tables(leaderboard: Leaderboard, claims: Sequence[Claim]) -> str:
    """One table per leaderboard and one of the claims; they need the packages booktabs and tabularx.

    The best ranked score of each leaderboard is bold, the teacher's apart; intervals are 95 %.
    """
    tables = [_board(board) for board in leaderboard.boards]
    if claims:
        tables.append(_claims(claims))
    return "% \\usepackage{booktabs,tabularx}\n" + "\n\n".join(tables) + "\n"


def latex(text: str) -> str:
    """`text` as LaTeX prints it; a minus before a digit becomes one."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in text)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped)


def _board(board: Board) -> str:
    shown = [column for column in columns(board) if column.rank < _OPTIONAL]
    headers = [column.title for column in shown]
    places = "".join("l" if header in ("method", "verdict") else "r" for header in headers)
    methods = [row for row in board.rows if not row.control]
    lines = [[_cell(column.header, column.cell(row), row) for column in shown] for row in methods]
    others = [[_cell(column.header, column.cell(row), row) for column in shown] for row in board.rows if row.control]
    teacher = [["", "teacher", latex(teacher_score(board)), *[""] * (len(shown) - 3)]] if board.teacher else []
    seeds = f"{len(board.seeds)} seed{'s' if len(board.seeds) != 1 else ''}"
    return _table(
        f"{latex(board.task)}: {latex(board.pair)}, {seeds}; $\\pm$ half a 95\\,\\% interval.",
        f"\\begin{{tabular}}{{{places}}}",
        [[latex(header) for header in headers]],
        [group for group in (teacher, lines, others) if group],
        "\\end{tabular}",
    )


def _cell(header: str, cell: str, row: Row) -> str:
    said = "--" if cell == MISSING else latex(cell)
    return f"\\textbf{{{said}}}" if row.rank == 1 and header == "method" else said


def _claims(claims: Sequence[Claim]) -> str:
    lines = [[latex(claim.claim), latex(claim.answer), latex(_first(claim))] for claim in claims]
    opening = "\\begin{tabularx}{\\linewidth}{>{\\raggedright}p{0.25\\linewidth}l>{\\raggedright\\arraybackslash}X}"
    return _table(
        "What is claimed for distillation.", opening, [["claim", "answer", "evidence"]], [lines], "\\end{tabularx}"
    )


def _table(
    caption: str, opening: str, heads: Sequence[Sequence[str]], groups: Sequence[Sequence[Sequence[str]]], closing: str
) -> str:
    """A float with rules above, below, under the heads and between the groups of lines."""

    def rows(lines: Sequence[Sequence[str]]) -> str:
        return "\n".join(" & ".join(line) + r" \\" for line in lines)

    body = "\n\\midrule\n".join(rows(lines) for lines in (heads, *groups))
    parts = ["\\begin{table}", "\\centering\\small", f"\\caption{{{caption}}}", opening, "\\toprule", body]
    return "\n".join([*parts, "\\bottomrule", closing, "\\end{table}"])


def _first(claim: Claim) -> str:
    return claim.evidence[0] if claim.evidence else ""
