"""Thousands of tiny trials in one run: memory and file handles must stay flat, leaderboard and UI usable.

Linux only: it reads /proc/self.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kdbench import DataFolders
from kdbench.cli.results import board_of
from kdbench.cli.tracking import synchronise
from kdbench.execution.local import execute
from kdbench.plan import Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.mlflow_client import default_tracking_uri
from kdbench.store.mlflow_server import start_server
from kdbench.store.run_folder import Manifest, RunFolder, now
from kdbench.suite import Suite
from kdbench.training.observer import Observer

from .harness import Report, Setting, Table, Target, main

GROWTH = 0.05  # of the memory, from a quarter of the run to its end
_PAIR = 2  # trials in a cohort: scratch and one method


@dataclass(frozen=True)
class Soak(Setting):
    """How many trials, and how often one looks."""

    trials: int = 2000
    looks: int = 40


QUICK = Soak(trials=60, looks=10)


@dataclass(frozen=True)
class Look:
    """The process after so many trials: seconds since the beginning, bytes in memory, open files, threads."""

    trials: int
    seconds: float
    memory: int
    files: int
    threads: int

    @classmethod
    def now(cls, trials: int, started: float) -> Look:
        """At this moment."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(
            trials,
            time.perf_counter() - started,
            pages * os.sysconf("SC_PAGE_SIZE"),
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
        )


def measure(setting: Soak) -> Report:
    """Trains them all in this process, looks at it in between, then ranks, syncs and serves what it came to."""
    with TemporaryDirectory() as name:
        out = Path(name)
        plan = planned(setting.trials, out)
        run = RunFolder.create(out, "soak")
        run.update(_manifest(plan))
        looks = train(plan, run, out, setting.looks)
        uses = _uses(run, out)
    rows = [
        (str(each.trials), f"{each.seconds:.0f}", f"{each.memory / 2**20:.0f}", str(each.files), str(each.threads))
        for each in looks
    ]
    tables = (
        Table("During the run.", ("trials", "seconds", "memory, MiB", "open files", "threads"), rows),
        Table("Afterwards.", ("what", "seconds"), [(what, f"{seconds:.1f}") for what, seconds in uses.items()]),
    )
    samples = {"looks": [vars(each) for each in looks], "uses": uses}
    return Report("soak", f"Soak: {looks[-1].trials} trials in one run.", tables, targets(looks, uses), samples)


def targets(looks: list[Look], uses: dict[str, float]) -> tuple[Target, ...]:
    """What grew from a quarter of the run, when all is loaded, to its end."""
    settled = looks[len(looks) // 4 :]
    quarter = max(1, len(settled) // 4)
    first, last = settled[:quarter], settled[-quarter:]
    memory = median(each.memory for each in last) / median(each.memory for each in first)
    pace = _pace(settled[len(settled) // 2 :]) / _pace(settled[: len(settled) // 2 + 1])
    return (
        Target("memory at the end, to that after a quarter", memory, 1 + GROWTH, "x"),
        Target("open files more at the end", last[-1].files - first[0].files, 0),
        Target("threads more at the end", last[-1].threads - first[0].threads, 0),
        Target("time of a trial, late to early", pace, 1.25, "x"),
        Target("leaderboard", uses["leaderboard"], 5.0, "s"),
        Target("a page of the UI's table", uses["a page of 100 rows from the MLflow server"], 5.0, "s"),
    )


def _pace(looks: list[Look]) -> float:
    """Seconds a trial."""
    return (looks[-1].seconds - looks[0].seconds) / max(1, looks[-1].trials - looks[0].trials)


def train(plan: Plan, run: RunFolder, out: Path, looks: int) -> list[Look]:
    """Looks at the process about `looks` times while it trains.

    Raises:
        RuntimeError: a trial did not end well.
    """
    started, done, found = time.perf_counter(), 0, []
    step = max(1, len(list(plan.trials)) // looks)
    for fresh in execute(plan, run, out, torch.device("cpu"), Observer()):
        for record in fresh:
            if record.status != "done":
                raise RuntimeError(f"{record.method} {record.status}: {record.reason}")
        before, done = done, done + len(fresh)
        if done // step > before // step:
            found.append(Look.now(done, started))
    return found


def _uses(run: RunFolder, out: Path) -> dict[str, float]:
    """Seconds of what people do with a run."""
    uri = default_tracking_uri(out)
    found = {
        "leaderboard": _seconds(lambda: board_of(run)),
        "first sync with MLflow (SQLite)": _seconds(lambda: synchronise(run, uri)),
        "second sync": _seconds(lambda: synchronise(run, uri)),
    }
    with start_server(uri, port=0) as server:
        found["a page of 100 rows from the MLflow server"] = _seconds(lambda: _page(server.url))
    return found


def _page(url: str) -> Any:
    asked = {"experiment_ids": ["1"], "max_results": 100}
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/runs/search", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return json.load(answer)["runs"]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def planned(trials: int, cache: Path) -> Plan:
    """Scratch and KD under many seeds on a few digits, one epoch each, one teacher for all."""
    suite = Suite.model_validate(
        {
            "suite": "soak@1.0",
            "tasks": ["digits[train_examples=100]"],
            "pairs": [{"teacher": ["cnn[width=0.5]"], "student": "cnn[width=0.25]"}],
            "methods": ["kd"],
            "add_controls": False,
            "seeds": max(1, trials // _PAIR),
            "teachers": "fixed",
            "recipe": {"epochs": 1, "batch_size": 32},
        }
    )
    return make_plan(suite, discover(), DataFolders((), cache))


def _manifest(plan: Plan) -> Manifest:
    moment = now()
    return Manifest(
        name="soak",
        suite=plan.suite.id,
        suite_digest=plan.suite.digest,
        suite_source=plan.suite.source,
        created=moment,
        updated=moment,
        trials={trial.identity: trial.fingerprint for trial in plan.trials},
    )


if __name__ == "__main__":
    main(measure, quick=QUICK, full=Soak())
