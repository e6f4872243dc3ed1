"""What keeping results costs: records and MLflow as a part of a run; thousands of records written, shown and synced."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from kdbench.cli import main as kdbench
from kdbench.cli.reporting import report
from kdbench.cli.results import board_of
from kdbench.cli.tracking import synchronise
from kdbench.errors import UnknownName
from kdbench.store.mlflow_client import connected, default_tracking_uri
from kdbench.store.run_folder import RunFolder

from .harness import Report, Setting, Table, Target, main
from .made_up import MadeUpRun
from .timing import Rounds, seconds_of

SHARE, SYNC_SECONDS, BOARD_SECONDS, RECORDS = 0.01, 120.0, 5.0, 10_000

WRITE, READ, BOARD = "write", "read", "leaderboard, reading included"
OPEN, SYNC, AGAIN = "new SQLite database", "first sync, leaderboard included", "sync again"

FILES, CHECKPOINTS = "records, weights, predictions", "checkpoints"
START, NEWS, END = "MLflow: start of its process", "MLflow: news for it", "MLflow, the report in it: waiting at the end"
REPORT = "of that the report (HTML), drawn once more here"
KEPT = (FILES, START, NEWS, END)  # checkpoints are what makes a killed run go on, the report is what it is run for
# What is charged, by the place from which it is called.
PLACES = {
    FILES: "kdbench.store.trial_files.write_atomic",
    START: "kdbench.cli.tracking_process.TrackingProcess._start",
    NEWS: "kdbench.cli.tracking_process.TrackingProcess.news",
    END: "kdbench.cli.tracking_process.TrackingProcess._finish",
    CHECKPOINTS: "kdbench.training.checkpoints.write_atomic",
}


@dataclass(frozen=True)
class Store(Setting):
    """`arguments` of the run whose time is taken apart, and so many records as many runs would leave."""

    arguments: str = "run quickstart"
    records: int = RECORDS
    examples: int = 500
    rounds: int = 1
    clock: str = "wall"


QUICK = Store(records=270)


def measure(setting: Store) -> Report:
    """Takes one run apart, then times the store on made-up records; fewer than 10,000 are scaled up, and said to be."""
    seconds, spent = taken_apart(setting.arguments.split())
    stored = _stored(setting)
    parts = [(name, f"{taken:.2f}", f"{100 * taken / seconds:.2f}") for name, taken in spent.items()]
    size = MadeUpRun.of(setting.records).size
    each = {name: stored.median(name) for name in (WRITE, READ, BOARD, OPEN, SYNC, AGAIN)}
    rows = [(name, taken.shown(2), taken.shown(2, 1000 / size)) for name, taken in each.items()]
    title = (
        f"{size} records, each of {setting.examples} test examples, {setting.rounds} rounds; "
        f"times ({setting.clock}): median (quartiles)."
    )
    tables = (
        Table(f"`kdbench {setting.arguments}`: {seconds:.1f} s in all.", ("what", "s", "% of the run"), parts),
        Table(title, ("what", "s", "ms a record"), rows),
    )
    kept = sum(spent[name] for name in KEPT) - min(spent[END], spent[REPORT])
    said = f"{RECORDS} records" + (f" (scaled from {size})" if size < RECORDS else "")
    targets = (
        Target("records and MLflow, share of the run", kept / seconds, SHARE),
        Target(f"{said} synced", each[OPEN].value + each[SYNC].value * RECORDS / size, SYNC_SECONDS, "s"),
        Target(f"leaderboard of {said}", each[BOARD].value * RECORDS / size, BOARD_SECONDS, "s"),
    )
    samples = {"run": {"whole": seconds, **spent}, "stored": stored.seconds}
    return Report("store", "Store: what records and MLflow cost beside training.", tables, targets, samples)


def taken_apart(arguments: Sequence[str]) -> tuple[float, dict[str, float]]:
    """The seconds of a command that is run in this process, and how many of them went where.

    Raises:
        RuntimeError: the command failed.
    """
    output = io.StringIO()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        for stream in (redirect_stdout, redirect_stderr):
            stack.enter_context(stream(output))
        stack.enter_context(patch.object(sys, "argv", ["kdbench", *arguments, "--out", folder]))
        spent = stack.enter_context(charged(PLACES))
        seconds = seconds_of(lambda: _ended(kdbench, output))
        return seconds, {**spent, REPORT: _drawing(Path(folder))}


def _drawing(out: Path) -> float:
    """The seconds that the report on the last run takes, where its libraries are loaded; 0 where there is no run."""
    try:
        run = RunFolder.open("latest", out)
    except UnknownName:
        return 0.0
    board = board_of(run)
    report(run, board)
    return seconds_of(lambda: report(run, board))


def _ended(command: Callable[[], object], output: io.StringIO) -> None:
    try:
        command()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"the run failed: {output.getvalue()}") from end


@contextmanager
def charged(places: Mapping[str, str]) -> Iterator[dict[str, float]]:
    """The wall time spent in functions, by the names that they are charged to, while the block runs."""
    spent = dict.fromkeys(places, 0.0)
    with ExitStack() as stack:
        for name, place in places.items():
            stack.enter_context(patch(place, _clocked(resolve_name(place), name, spent)))
        yield spent


def _clocked(function: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[name] += time.perf_counter() - started

    return call


def _stored(setting: Store) -> Rounds:
    """The seconds of each operation on a run of so many made-up records, each time in a folder of its own."""
    found = Rounds()
    for _ in range(setting.rounds):
        with TemporaryDirectory() as name:
            folder = Path(name)
            run = RunFolder(folder / "made-up")
            uri = default_tracking_uri(folder)
            sync = partial(synchronise, run, uri, with_report=False)
            operations: dict[str, Callable[[], object]] = {
                WRITE: partial(MadeUpRun.of(setting.records, setting.examples).write, folder),
                READ: run.records,
                BOARD: partial(board_of, run),
                OPEN: partial(_opened, uri),
                SYNC: sync,
                AGAIN: sync,
            }
            found.add({name: seconds_of(work, setting.clock) for name, work in operations.items()})
    return found


def _opened(tracking_uri: str) -> None:
    """Whatever MLflow does once, the making of its tables most of all."""
    with connected(tracking_uri) as client:
        client.search_experiments()


if __name__ == "__main__":
    main(measure, QUICK, Store())
