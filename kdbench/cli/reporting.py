"""`kdbench report`: a run as one file to read, to send on, or to put into a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from kdbench.analysis.board import Leaderboard
from kdbench.analysis.claims import claims
from kdbench.analysis.ranks import ranking
from kdbench.cli.console import out, print_raw
from kdbench.cli.results import board_of
from kdbench.errors import BadInput
from kdbench.files import write_atomic
from kdbench.report.html import html_report
from kdbench.report.papers import latex_tables, markdown_tables
from kdbench.store.run_folder import RunFolder

Format = Literal["html", "markdown", "latex"]

_ENDINGS: dict[Format, str] = {"html": "html", "markdown": "md", "latex": "tex"}


def write_report(reference: str, folder: Path, to: Path | None, form: str) -> None:
    """Writes a run's report to `to`, or into the run's folder; "-" is standard output.

    Raises:
        BadInput: the format is unknown, `to` is a folder, or no trial has ended yet.
        StoreError: the file cannot be written.
    """
    known = _known(form)
    run = RunFolder.open(reference, folder)
    target = to or run.path / f"report.{_ENDINGS[known]}"
    if target.is_dir():
        raise BadInput(f"{target} is a folder", hint=f"name the file: -o {target / f'report.{_ENDINGS[known]}'}")
    written = report(run, board_of(run), known)
    if str(to) == "-":
        print_raw(written)
        return
    write_atomic(target, written)
    out.print(f"written: {target} ({len(written.encode()) / 1e3:.0f} kB)", markup=False, soft_wrap=True)


def report(run: RunFolder, board: Leaderboard, form: Format = "html") -> str:
    """The report of a run whose leaderboard is `board`."""
    if form == "html":
        return html_report(run.manifest(), board, run.records(), claims(board), ranking(board))
    write = {"markdown": markdown_tables, "latex": latex_tables}[form]
    return write(board, claims(board))


def _known(form: str) -> Format:
    for known in get_args(Format):
        if form == known:
            return known
    raise BadInput(f"there is no format {form!r}", hint=f"choose one of {', '.join(get_args(Format))}")
