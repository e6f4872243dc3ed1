"""Plans that are carried out in seconds, some with methods that no machine should meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.data import DataFolders
from kdbench.execution.limits import Limits
from kdbench.execution.work import Executor, Work
from kdbench.measuring.record import Record
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer

MENACES = '''
"""Methods that cost more than their own trial where nobody looks after them."""

import os
from dataclasses import dataclass
from kdbench import Method, hookimpl


@dataclass(frozen=True)
class Late(Method):
    """Harmless for one epoch."""

    family = "response"

    def losses(self, step):
        if step.progress > 0.6:
            self.menace()
        return {"task": step.task_loss(step.student["logits"])}


class Loops(Late):
    """Never returns."""

    def menace(self):
        while True:
            pass


class Hoards(Late):
    """Takes more and more memory, every page of it."""

    def menace(self):
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1 << 20)) * 32)


class Exits(Late):
    """Ends the process."""

    def menace(self):
        os._exit(7)


class Forks(Late):
    """Lets its children go on as if they were the worker."""

    def menace(self):
        os.fork()


@hookimpl
def kdbench_methods():
    return {"loops": Loops, "hoards": Hoards, "exits": Exits, "forks": Forks}
'''


REPRODUCED = {"status", "metrics", "curves", "samples", "calibration_curve", "params", "fingerprint"}


def reproduced(records: dict[str, Record]) -> dict[str, dict[str, Any]]:
    """What must be the same bit for bit wherever a trial runs."""
    return {name: record.model_dump(include=REPRODUCED) for name, record in records.items()}


@pytest.fixture
def menaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has discovery find the methods above, here and in workers."""
    folder = tmp_path / "menaces"
    folder.mkdir()
    (folder / "menaces.py").write_text(MENACES, encoding="utf-8")
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(folder))


@pytest.fixture
def work(tiny_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., Work]:
    """The work of a tiny suite in the folder `out`; only validation is measured, unless asked for more."""

    def make(out: str = "out", validation_only: bool = True, **changes: str) -> Work:
        one_teacher = {"teachers": "'cnn[width=0.5]'", **changes}
        suite = load_suite(str(tiny_suite(**one_teacher)))
        plan = make_plan(suite, discover(), DataFolders((tmp_path,), tmp_path))
        run = RunFolder.create(tmp_path / out, "run")
        return Work(plan, run, tmp_path / out, torch.device("cpu"), validation_only=validation_only)

    return make


@pytest.fixture
def carry_out() -> Callable[..., dict[str, Record]]:
    """Executes work; the records by method and seed."""

    def run(
        executor: Executor, work: Work, limits: Limits | None = None, observer: Observer | None = None
    ) -> dict[str, Record]:
        for _ in executor.execute(work, limits or Limits(), observer or Observer()):
            pass
        found = (work.run.trial(trial.fingerprint).record() for trial in work.plan.trials)
        return {f"{record.method} {record.seed}": record for record in found if record}

    return run
