"""`kdbench sync` and `kdbench ui`: MLflow as the view on records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdbench.analysis import tables
from kdbench.cli.console import err
from kdbench.cli.console import out as console
from kdbench.cli.reporting import report
from kdbench.cli.results import board_of
from kdbench.errors import StoreError, UnknownName
from kdbench.report.tracking import method_runs
from kdbench.store.mlflow_client import connected, default_tracking_uri, masked
from kdbench.store.mlflow_server import start_server
from kdbench.store.mlflow_view import SyncResult, find_view, sync
from kdbench.store.run_folder import RunFolder
from kdbench.training.observer import Observer


def synchronise(run: RunFolder, tracking_uri: str, *, with_report: bool = True) -> SyncResult:
    """Makes MLflow show the run's records as they are on disk, and the report on them, which takes seconds.

    Raises:
        StoreError: MLflow cannot be reached or written; the records do not depend on it.
    """
    board = board_of(run)
    artifacts = {
        "leaderboard.csv": tables.to_csv(board),
        "leaderboard.json": tables.to_json(board),
        "leaderboard.md": tables.to_markdown(board),
        "verdict.json": tables.verdicts_to_json(board),
    }
    if with_report:
        artifacts["report.html"] = report(run, board)
    return sync(
        tracking_uri,
        run.path.name,
        run.manifest(),
        run.records(),
        method_runs(board),
        artifacts,
        tables.to_frame(board),
        run.path.parent,
    )


_SHARE = 0.01  # of a run's time that keeping MLflow up to date may take while it lasts, after the first time


class Tracker:
    """Keeps MLflow up to date during a run, and never fails or stops it: the records are the truth."""

    def __init__(self, run: RunFolder, uri: str) -> None:
        self.run, self.uri = run, uri
        self._given_up = False
        self._rests_until = 0.0

    def prepare(self, observer: Observer) -> None:
        """Makes the database, if there is none yet; a wrong address is told now, and not at the end."""
        with self._failing(observer), connected(self.uri) as client:
            client.search_experiments(max_results=1)

    def sync(self, observer: Observer, *, last: bool = False) -> None:
        """Writes what is new, unless the last time was too short ago for what it took. After a failure it waits for the
        end of the run before it tries once more."""
        started = time.monotonic()
        if not last and (self._given_up or started < self._rests_until):
            return
        with self._failing(observer, last):
            synchronise(self.run, self.uri)
        now = time.monotonic()
        self._rests_until = now + (now - started) / _SHARE

    @contextmanager
    def _failing(self, observer: Observer, last: bool = False) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if last or not self._given_up:
                observer.note(f"MLflow at {masked(self.uri)} was not updated: {error.message}")
            if last:
                observer.note(f"nothing is lost; `kdbench sync {self.run.path}` makes it whole")
            self._given_up = True


def sync_run(reference: str, out: Path, tracking_uri: str | None) -> None:
    """Brings MLflow up to date with one run."""
    run = RunFolder.open(reference, out)
    uri = tracking_uri or default_tracking_uri(run.path.parent)
    done = synchronise(run, uri)
    console.print(
        f"{run.path.name} in {masked(uri)}: {done.created} runs created, {done.updated} updated, "
        f"{done.unchanged} unchanged, {done.deleted} deleted",
        markup=False,
        soft_wrap=True,
    )


_OPEN = (
    "It asks nobody for a password: anyone who reaches this machine can read and change everything in it, and see the "
    "files that its runs name. To look from elsewhere, `ssh -L PORT:127.0.0.1:PORT THIS_MACHINE` needs no --host."
)


def serve_ui(host: str, port: int, out: Path, tracking_uri: str | None) -> None:
    """Serves MLflow until interrupted, after printing the link to the latest leaderboard."""
    uri = tracking_uri or default_tracking_uri(out)
    view = _latest_view(uri, out)
    with start_server(uri, port, host, out) as server:
        if not server.address.is_local:
            err.print(f"warning: MLflow listens on {host}. {_OPEN}", markup=False, soft_wrap=True)
        console.print(f"leaderboard: {server.url}{view or '/'}", markup=False, soft_wrap=True)
        console.print("Ctrl-C ends it")
        server.wait()


def _latest_view(uri: str, out: Path) -> str | None:
    try:
        run = RunFolder.open("latest", out)
    except UnknownName:
        return None
    return find_view(uri, run.manifest().suite, run.path.name)
