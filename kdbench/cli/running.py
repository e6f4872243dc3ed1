"""`kdbench run`: from a suite file to leaderboard and verdict."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kdbench.cli.choosing import choose
from kdbench.cli.console import err
from kdbench.cli.data import data_folders
from kdbench.cli.garbage import collect_as_usual
from kdbench.cli.progress import ConsoleObserver
from kdbench.cli.results import print_results
from kdbench.cli.tracking import Tracker
from kdbench.cli.tracking_process import TrackingProcess
from kdbench.errors import BadInput, Terminated
from kdbench.execution.executors import Local, executor
from kdbench.execution.limits import Limits, OutOfTime
from kdbench.execution.local import epochs_to_train
from kdbench.execution.run_lock import locked
from kdbench.execution.work import Executor, Work
from kdbench.plan import Plan, Trial
from kdbench.planner import Planner
from kdbench.plugins import discover
from kdbench.profiling import span
from kdbench.store.damage import set_aside_damaged
from kdbench.store.mlflow_client import default_tracking_uri
from kdbench.store.run_folder import Manifest, RunFolder, Session, now
from kdbench.suite import Suite
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer


def run_name(name: str | None, suite: Suite, tuning_trials: int) -> str:
    """The name asked for, or else the suite's; the two tracks of a suite are two runs."""
    return name or (f"{suite.id}-tuned" if tuning_trials else suite.id)


def requested_suite(suite: str, methods: list[str], seeds: int | None) -> Suite:
    """The suite as its file says, with the command line's methods and seeds in place."""
    return load_suite(suite).with_overrides(methods, seeds)


@dataclass(frozen=True)
class Means:
    """Where cohorts are trained, and what they may take."""

    executor: Executor
    limits: Limits

    @property
    def here(self) -> bool:
        """Whether in this process."""
        return isinstance(self.executor, Local) and not self.limits.of_trials


def requested_means(name: str, limits: Limits, profiled: bool) -> Means:
    """The executor as the command line asks for it.

    Raises:
        UnknownName, BadInput: there is none of that name, or it has no such setting; or a profile is asked for.
    """
    means = Means(executor(name), limits)
    if profiled and not means.here:
        hint = "profile a run with --executor local and without --trial-minutes and --trial-memory"
        raise BadInput("--profile and --trace see this process only, and training goes on in others", hint=hint)
    return means


def run_suite(
    suite: str,
    methods: list[str],
    seeds: int | None,
    tuning_trials: int,
    out: Path,
    name: str | None,
    device: torch.device,
    means: Means,
    tracking_uri: str | None,
) -> int:
    """Runs what is missing, keeps MLflow up to date, prints the results; returns the exit status.

    `tuning_trials`: how many configurations of every method and control are tried first; 0: the suite's own are run.

    Raises:
        OutOfTime: the run's time is over; everything finished is stored and in MLflow.
        StoreError: another command works on the run, or results cannot be written.
    """
    begun, clock = now(), time.perf_counter()
    wanted = requested_suite(suite, methods, seeds)
    with span("planning"), data_folders() as folders:
        planner = Planner(wanted, discover(), folders)
        plan = planner.plan()
    collect_as_usual()
    folder = RunFolder.create(out, run_name(name, wanted, tuning_trials))
    with _terminable(), locked(folder) as note:
        if note:
            err.print(note, markup=False, soft_wrap=True)
        chosen = None
        if tuning_trials:
            chosen = choose(planner, tuning_trials, folder, device, means.executor, means.limits)
            means = replace(means, limits=means.limits.after(time.perf_counter() - clock))
        work = Work(planner.plan(chosen) if chosen else plan, folder, out, device, chosen)
        for line in set_aside_damaged(work.plan, folder, out):
            err.print(line, markup=False, soft_wrap=True)
        folder.update(_manifest(work.plan, folder, tuning_trials))
        tracker = Tracker(folder, tracking_uri or default_tracking_uri(out))
        with TrackingProcess(tracker) as tracking:
            with ConsoleObserver(err, epochs_to_train(work.plan, folder, out)) as observer:
                stopped = _train(work, means, tracking, observer)
            _add_session(folder, begun, time.perf_counter() - clock)
            with tracking.finishing(observer) if folder.records() else nullcontext():
                if not stopped:
                    with span("analysis"):
                        print_results(folder)
    if stopped:
        raise stopped
    asked = {trial.fingerprint for trial in work.plan.trials}
    ended = {record.status for record in folder.records() if record.fingerprint in asked}
    return 1 if ended & {"failed", "diverged"} else 0


def _train(work: Work, means: Means, tracking: TrackingProcess, observer: Observer) -> OutOfTime | None:
    """Has the work done and MLflow kept up to date; returns the error where the run's time is over before it is."""
    with closing(means.executor.execute(work, means.limits, observer)) as progress:
        try:
            for fresh in progress:
                if fresh:
                    tracking.news(observer)
        except OutOfTime as stopped:
            return stopped
    return None


def _add_session(folder: RunFolder, begun: str, seconds: float) -> None:
    session, manifest = Session(started=begun, seconds=seconds, peak_memory_bytes=_peak_memory()), folder.manifest()
    folder.update(manifest.model_copy(update={"sessions": (*manifest.sessions, session)}))


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM, which schedulers send, unwinds as Ctrl-C does: no file is half written, and no worker
    left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only there can Python be told what to do with signals
        return

    def stop(number: int, _: object) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _manifest(plan: Plan, folder: RunFolder, tuning_trials: int) -> Manifest:
    """The run's table of contents. Trials of earlier commands stay in it as long as suite and track are the same."""
    suite, previous, moment = plan.suite, folder.manifest() if folder.has_manifest() else None, now()
    asked = (suite.digest, tuning_trials)
    kept = previous.trials if previous and (previous.suite_digest, previous.tuning_trials) == asked else {}
    trials = [*plan.trials, *(each.trial for each in plan.skipped)]
    if tuning_trials:
        kept = _of_others(kept, trials, folder)
    planned = {trial.identity: trial.fingerprint for trial in trials}
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
        tuning_trials=tuning_trials,
    )


def _of_others(kept: Mapping[str, str], trials: list[Trial], folder: RunFolder) -> dict[str, str]:
    """Of earlier trials those of methods that are not run now: another choice takes the place of the earlier one."""
    now_run = {(trial.task, trial.pair, trial.method_name) for trial in trials}
    records = {identity: folder.trial(fingerprint).record() for identity, fingerprint in kept.items()}
    return {
        identity: kept[identity]
        for identity, record in records.items()
        if record and (record.task, record.pair, record.method) not in now_run
    }


def _peak_memory() -> int | None:
    """The most memory that this process, or a worker of it, held so far, in bytes; None where nobody tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
