"""What a bad disk or a careless hand did to finished trials: found before a run, and computed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdbench.plan import Plan, Trial
from kdbench.store.run_folder import RunFolder
from kdbench.store.trial_files import TrialFiles, teacher_files


def set_aside_damaged(plan: Plan, run: RunFolder, out: Path) -> list[str]:
    """Makes every trial and teacher of `plan` whose files are damaged count as not yet run; says of each what it was.

    Raises:
        StoreError: a folder cannot be written, or another version of kdbench wrote a record.
    """
    found = []
    for files in _stored(plan, run, out):
        damage = files.damage()
        if damage is not None:
            files.set_aside()
            found.append(f"{damage.message}; it is computed again")
    return found


def _stored(plan: Plan, run: RunFolder, out: Path) -> Iterator[TrialFiles]:
    students: list[Trial] = [*plan.trials, *(skipped.trial for skipped in plan.skipped)]
    yield from (run.trial(trial.fingerprint) for trial in students)
    yield from (teacher_files(out, trial.fingerprint) for trial in plan.teachers)
