"""`kdbench compare`: what changed from one run to another."""

from __future__ import annotations

from pathlib import Path

from kdbench.analysis import tables
from kdbench.analysis.comparison import Side, compare
from kdbench.cli.console import out, print_raw
from kdbench.cli.results import board_of
from kdbench.report.findings import comparison_tables
from kdbench.store.run_folder import RunFolder


def show_comparison(old: str, new: str, folder: Path, as_json: bool) -> None:
    """Prints what changed, as tables or as JSON.

    Raises:
        BadInput: the runs cannot be compared; says why.
    """
    comparison = compare(*(_side(RunFolder.open(reference, folder)) for reference in (old, new)))
    if as_json:
        print_raw(tables.comparison_to_json(comparison))
    else:
        out.print(comparison_tables(comparison, out.width))


def _side(run: RunFolder) -> Side:
    return Side(
        name=run.path.name,
        leaderboard=board_of(run),
        records=run.records(),
        influences=lambda record: run.trial(record.fingerprint).influences(),
    )
