"""What does not fit the device together is trained in less company, to the same end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.data import DataFolders
from kdbench.execution import local
from kdbench.execution.local import execute
from kdbench.measuring.record import Record
from kdbench.plan import Cohort, Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.trained import Trained

from .conftest import Notes

CPU = torch.device("cpu")
METHODS = "kd, fitnets, attention_transfer, rkd"


@pytest.fixture
def plan(tiny_suite: Callable[..., Path], tmp_path: Path) -> Plan:
    suite = load_suite(str(tiny_suite(methods=METHODS, epochs="1")))
    return make_plan(suite, discover(), DataFolders((tmp_path,), tmp_path))


def room_for(trials: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes a device on which only so many students fit; returns the sizes of the cohorts that are tried."""
    tried: list[int] = []
    train = local.train

    def crowded(cohort: Cohort, *others: Any) -> Iterator[Trained]:
        if cohort.head.reference is not None:
            tried.append(len(cohort.trials))
        for number, trained in enumerate(train(cohort, *others)):
            full = trained.trial.reference is not None and number >= trials
            starved = {"status": "failed", "student": None, "reason": "no room", "out_of_memory": True}
            yield dataclasses.replace(trained, **starved) if full else trained

    monkeypatch.setattr(local, "train", crowded)
    return tried


def ended(plan: Plan, out: Path, notes: Notes) -> dict[str, Record]:
    records = [record for cohort in execute(plan, RunFolder.create(out, "run"), out, CPU, notes) for record in cohort]
    return {record.method: record for record in records}


@pytest.mark.parametrize(("room", "cohorts"), [(5, [5]), (3, [5, 2]), (2, [5, 3, 1]), (1, [5, 4, 3, 2, 1])])
def test_they_come_to_the_same_end(
    room: int, cohorts: list[int], plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spacious = ended(plan, tmp_path / "spacious", Notes())
    tried, notes = room_for(room, monkeypatch), Notes()
    crowded = ended(plan, tmp_path / "crowded", notes)
    assert tried == cohorts
    assert len(notes.said) == len(cohorts) - 1
    assert {name: record.metrics for name, record in crowded.items()} == {
        name: record.metrics for name, record in spacious.items()
    }


def test_one_that_does_not_even_fit_alone_fails(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, notes = room_for(0, monkeypatch), Notes()
    records = ended(plan, tmp_path / "out", notes)
    assert {record.status for record in records.values()} == {"failed"}
    assert tried == [5, 2, 1, 1, 3, 1, 2, 1, 1]
    assert "out of memory: 5 of 5 trials are trained in less company" in notes.said
