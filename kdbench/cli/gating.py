"""`kdbench verdict --require`: a gate before deployment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbench.analysis import tables
from kdbench.analysis.requirements import Requirement, check
from kdbench.cli.console import out, print_raw
from kdbench.cli.results import board_of
from kdbench.report.findings import checks_table
from kdbench.store.run_folder import RunFolder


def show_checks(reference: str, folder: Path, required: Sequence[str], confident: bool, as_json: bool) -> int:
    """Prints which requirements a run meets; the exit status: 0 for all of them, else 1."""
    requirements = [Requirement.parse(text) for text in required]
    leaderboard = board_of(RunFolder.open(reference, folder))
    checks = check(leaderboard, requirements, confident)
    if as_json:
        print_raw(tables.checks_to_json(leaderboard, checks))
    else:
        out.print(checks_table(checks))
    return 0 if all(each.passed for each in checks) else 1
