"""`kdbench records`, `leaderboard` and `verdict`: what a run came to."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from textwrap import indent
from typing import Literal

from pydantic_core import to_json
from rich.text import Text

from kdbench.analysis import tables
from kdbench.analysis.board import Leaderboard
from kdbench.analysis.claims import claims
from kdbench.analysis.leaderboard import leaderboard
from kdbench.analysis.ranks import ranking
from kdbench.cli.console import out, print_raw
from kdbench.errors import BadInput
from kdbench.measuring.record import Record
from kdbench.report.findings import claims_table, ranking_table
from kdbench.report.terminal import leaderboard_table, verdict_panel
from kdbench.store.run_folder import RunFolder

_KEPT = 1024  # influences in memory at once (40 MB of 10,000 examples): controls are asked for by every method


def board_of(run: RunFolder) -> Leaderboard:
    """The leaderboard of a run's records.

    Raises:
        BadInput: no trial has ended yet.
    """
    records = run.records()
    if not records:
        raise BadInput(f"the run in {run.path} has no finished trial yet", hint="`kdbench run` goes on with it")
    influences = lru_cache(_KEPT)(lambda fingerprint: run.trial(fingerprint).influences())
    return leaderboard(
        records,
        equivalence_margin=run.manifest().equivalence_margin,
        influences=lambda record: influences(record.fingerprint),
    )


def print_results(run: RunFolder) -> None:
    """The leaderboard and the verdict, as `kdbench run` ends."""
    board = board_of(run)
    _print_leaderboard(run, board)
    out.print(verdict_panel(board))


def show_leaderboard(reference: str, folder: Path, form: Literal["terminal", "json", "csv", "markdown"]) -> None:
    """Prints a run's leaderboard in one of its forms."""
    run = RunFolder.open(reference, folder)
    if form == "terminal":
        _print_leaderboard(run, board_of(run))
    else:
        written = {"json": tables.to_json, "csv": tables.to_csv, "markdown": tables.to_markdown}
        print_raw(written[form](board_of(run)))


def _print_leaderboard(run: RunFolder, leaderboard: Leaderboard) -> None:
    manifest = run.manifest()
    title = (manifest.title or manifest.suite, "bold")
    out.print(Text.assemble(title, f" ({manifest.suite}), run {run.path}"), soft_wrap=True)
    if manifest.tuning_trials:
        out.print(manifest.track)
    for departure in manifest.departures:
        out.print(f"departs from the protocol: {departure}", markup=False, style="dim")
    for board in leaderboard.boards:
        out.print()
        out.print(leaderboard_table(board, out.width))
    if across := ranking(leaderboard):
        out.print()
        out.print(ranking_table(across))
    out.print()


def show_verdict(reference: str, folder: Path, as_json: bool) -> None:
    """Prints a run's verdict with its evidence, and what it has to say about the claims made for distillation."""
    board = board_of(RunFolder.open(reference, folder))
    if as_json:
        print_raw(tables.verdicts_to_json(board))
        return
    out.print(verdict_panel(board))
    out.print()
    out.print(claims_table(claims(board)))


def show_records(reference: str, folder: Path, as_json: bool, samples: bool) -> None:
    """Prints one line per trial, and its samples below it if asked for; as JSON, one object per line with every number
    of the record."""
    for record in RunFolder.open(reference, folder).records():
        if as_json:
            print_raw(to_json(_public(record), inf_nan_mode="strings").decode())
        else:
            print_raw(_line(record))
            for text in record.samples if samples else ():
                print_raw(indent(text, "    ") + "\n\n")


def _public(record: Record) -> dict[str, object]:
    kept = (
        "fingerprint",
        "status",
        "suite",
        "task",
        "pair",
        "method",
        "params",
        "family",
        "seed",
        "reason",
        "primary",
        "metrics",
        "measurements",
        "samples",
    )
    return record.model_dump(include=set(kept))


def _line(record: Record) -> str:
    score = record.metrics.get(record.primary)
    said = f"{record.primary} {score:.4f}" if score is not None else record.reason or ""
    where = f"{record.task}  {record.pair}  seed {record.seed}"
    return f"{record.fingerprint[:12]}  {record.status:8}  {record.method:20}  {where}  {said}"
