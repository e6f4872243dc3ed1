"""`kdbench run`: from a suite file to leaderboard and verdict."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kdbench.cli.console import err
from kdbench.cli.data import data_folders
from kdbench.cli.progress import ConsoleObserver
from kdbench.cli.results import print_results
from kdbench.cli.tracking import Tracker
from kdbench.execution.local import execute, is_finished
from kdbench.plan import Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.run_folder import Manifest, RunFolder, Session, now
from kdbench.store.trial_files import teacher_files
from kdbench.suite import Suite
from kdbench.suite_file import load_suite
from kdbench.training.device import resolve_device


def requested_suite(suite: str, methods: list[str], seeds: int | None) -> Suite:
    """The suite as its file says, with the command line's methods and seeds in place."""
    return load_suite(suite).with_overrides(methods, seeds)


def run_suite(
    suite: str,
    methods: list[str],
    seeds: int | None,
    out: Path,
    name: str | None,
    device: str,
    tracking_uri: str | None,
) -> int:
    """Runs what is missing, keeps MLflow up to date, prints the results; returns the exit status."""
    begun, clock = now(), time.perf_counter()
    wanted = requested_suite(suite, methods, seeds)
    target = resolve_device(device)
    with data_folders() as folders:
        plan = make_plan(wanted, discover(), folders)
    folder = RunFolder.create(out, name or wanted.id)
    folder.update(_manifest(plan, folder))
    tracker = Tracker(folder, out, tracking_uri)
    with ConsoleObserver(err, epochs_to_train(plan, folder, out)) as observer:
        for fresh in execute(plan, folder, out, target, observer):
            if fresh:
                tracker.sync(observer)
    tracker.sync(observer, last=True)
    session = Session(started=begun, seconds=time.perf_counter() - clock, peak_memory_bytes=_peak_memory())
    manifest = folder.manifest()
    folder.update(manifest.model_copy(update={"sessions": (*manifest.sessions, session)}))
    print_results(folder)
    asked = {trial.fingerprint for trial in plan.trials}
    ended = {record.status for record in folder.records() if record.fingerprint in asked}
    return 1 if ended & {"failed", "diverged"} else 0


def epochs_to_train(plan: Plan, folder: RunFolder, out: Path) -> int:
    """The epochs, summed over networks, of all students and teachers without a finished record."""
    students = [trial for trial in plan.trials if not is_finished(folder.trial(trial.fingerprint).record())]
    teachers = [trial for trial in plan.teachers if not is_finished(teacher_files(out, trial.fingerprint).record())]
    return sum(trial.recipe.epochs for trial in [*students, *(teachers if students else [])])


def _manifest(plan: Plan, folder: RunFolder) -> Manifest:
    """The run's table of contents. Trials of earlier commands stay in it as long as the suite is the same."""
    suite, previous, moment = plan.suite, folder.manifest() if folder.has_manifest() else None, now()
    kept = previous.trials if previous and previous.suite_digest == suite.digest else {}
    planned = {trial.identity: trial.fingerprint for trial in [*plan.trials, *(each.trial for each in plan.skipped)]}
    return Manifest(
        name=folder.path.name,
        suite=suite.id,
        suite_digest=suite.digest,
        suite_source=suite.source,
        title=suite.title,
        question=suite.question,
        equivalence_margin=suite.equivalence_margin,
        departures=suite.departures,
        created=previous.created if previous else moment,
        updated=moment,
        trials={**kept, **planned},
        sessions=previous.sessions if previous and kept else (),
    )


def _peak_memory() -> int | None:
    """The most memory that this process held so far, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
