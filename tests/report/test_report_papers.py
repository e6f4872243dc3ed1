"""Tables for papers: what LaTeX and Markdown get."""

from __future__ import annotations

from typing import Any

import pytest

from kdbench.analysis.claims import claims
from kdbench.analysis.tables import to_markdown
from kdbench.report.papers import latex, latex_tables, markdown_tables


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        ("a_b & 50 % #1", r"a\_b \& 50 \% \#1"),
        ("x^2 ~ {y} $z$ \\w", r"x\textasciicircum{}2 \textasciitilde{} \{y\} \$z\$ \textbackslash{}w"),
        ("74.47 ± 0.50", r"74.47 $\pm$ 0.50"),
        ("-0.19 [-0.95, +0.58]", "$-$0.19 [$-$0.95, +0.58]"),
        ("vision-2 -> small", r"vision-2 -\textgreater{} small"),
        ("1.87× rmse ↓", r"1.87$\times$ rmse $\downarrow$"),
    ],
)
def test_latex_is_escaped(plain: str, written: str) -> None:
    assert latex(plain) == written


def test_latex_tables_are_whole(run: Any) -> None:
    board = run.leaderboard
    written = latex_tables(board, claims(board))
    for name in ("table", "tabular", "tabularx"):
        assert written.count(f"\\begin{{{name}}}") == written.count(f"\\end{{{name}}}") > 0
    assert written.count("\\toprule") == written.count("\\bottomrule") == 2
    table = written[: written.index("\\end{tabular}")].splitlines()
    (spec,) = [line for line in table if line.startswith("\\begin{tabular}")]
    rows = [line for line in table if line.endswith(r"\\")]
    assert {row.replace(r"\&", "").count("&") for row in rows} == {len(spec.removeprefix("\\begin{tabular}")) - 3}
    assert rows[0].startswith(r"\# & method & accuracy \% & gain over scratch & kept \%")
    assert any(row.startswith(r"1 & \textbf{kd} & 74.3 $\pm$ 1.1 & +1.88 [+1.72, +2.04]") for row in rows)
    assert written.count("\\textbf{") == 1
    assert "label\\_smoothing" in written
    assert r"\textless{}script\textgreater{}" in written


def test_markdown_has_the_leaderboard_and_the_claims(run: Any) -> None:
    board = run.leaderboard
    written = markdown_tables(board, claims(board))
    assert written.startswith(to_markdown(board))
    for claim in claims(board):
        assert f"| {claim.claim} | {claim.answer} | " in written
