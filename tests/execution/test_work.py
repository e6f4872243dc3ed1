"""Work goes to workers as JSON, and they come to the same trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdbench.data import DataFolders
from kdbench.errors import StoreError
from kdbench.execution import supervisor
from kdbench.execution.event_log import EventLog, EventReader
from kdbench.execution.limits import Limits
from kdbench.execution.units import Unit
from kdbench.execution.work import Job, Work, check_same
from kdbench.execution.workplace import Workplace
from kdbench.plan import Configuration, TuningCost
from kdbench.planner import Planner
from kdbench.plugins import discover
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite


def fingerprints(work: Work) -> set[str]:
    planned = (*work.plan.trials, *work.plan.teachers, *(skipped.trial for skipped in work.plan.skipped))
    return {trial.fingerprint for trial in planned}


def again(work: Work) -> Work:
    """The work, written and read."""
    return Job.model_validate_json(Job.of(work, Limits()).model_dump_json()).work()


@pytest.fixture
def planner(tiny_suite: Callable[..., Path], tmp_path: Path) -> Planner:
    suite = load_suite(
        str(tiny_suite(methods="kd, {name: rkd, distance_weight: 3}, ensemble", teachers="'cnn[width=0.5]'"))
    )
    overridden = suite.with_overrides(["kd[temperature=3]", "rkd", "fitnets[published]", "ensemble"], 2)
    return Planner(overridden, discover(), DataFolders((tmp_path,), tmp_path))


def test_overrides_of_the_command_line_are_kept(planner: Planner, tmp_path: Path) -> None:
    work = Work(planner.plan(), RunFolder(tmp_path / "run"), tmp_path, torch.device("cpu"))
    assert work.plan.skipped, "one teacher is no ensemble"
    assert fingerprints(again(work)) == fingerprints(work)


def test_so_are_configurations_that_tuning_chose(planner: Planner, tmp_path: Path) -> None:
    tuned = {
        board: [
            Configuration(own.method_name, own.method, 1 / 3, TuningCost(7, 1e15 / 3, 0.1)) for own in configurations
        ]
        for board, configurations in planner.own.items()
    }
    plan = planner.plan(tuned)
    work = Work(plan, RunFolder(tmp_path / "run"), tmp_path, torch.device("cpu"), tuned)
    assert fingerprints(again(work)) == fingerprints(work)
    assert fingerprints(again(work)).isdisjoint(fingerprints(replace(work, plan=planner.plan())) - teachers(work))


def test_so_are_the_rounds_of_tuning(planner: Planner, tmp_path: Path) -> None:
    rounds = planner.for_tuning()
    work = Work(
        rounds.cross(planner.own), RunFolder(tmp_path / "run"), tmp_path, torch.device("cpu"), planner.own, True
    )
    assert fingerprints(again(work)) == fingerprints(work)
    assert again(work).validation_only


def test_on_a_machine_of_a_cluster_a_worker_has_the_same_limits(
    planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(planner.plan(), RunFolder(tmp_path / "run"), tmp_path, torch.device("cpu"))
    asked, given = Limits(trial_minutes=3, trial_memory=2, cohort_memory=1, streams=4), []

    def carries_out(work: Work, limits: Limits, *_: object) -> Iterator[None]:
        given.append(limits)
        yield

    monkeypatch.setattr(supervisor, "carry_out_here", carries_out)
    log, unit = EventLog(tmp_path / "events"), Unit((next(iter(work.plan.trials)),))
    supervisor.carry_out(Job.of(work, asked), work, unit, Workplace(tmp_path), log, lambda: False)
    names = ("trial_minutes", "trial_memory", "cohort_memory", "streams")
    assert [getattr(given[0], name) for name in names] == [getattr(asked, name) for name in names]


def teachers(work: Work) -> set[str]:
    return {trial.fingerprint for trial in work.plan.teachers}


def test_another_plan_is_refused(planner: Planner, tmp_path: Path) -> None:
    work = Work(planner.plan(), RunFolder(tmp_path / "run"), tmp_path, torch.device("cpu"))
    check_same(work, fingerprints(work) - {skipped.trial.fingerprint for skipped in work.plan.skipped})
    with pytest.raises(StoreError, match="does not come to the plan that it was given"):
        check_same(work, {"0" * 32})


def test_events_are_read_once_and_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "events"
    reader, log = EventReader(path), EventLog(path)
    assert reader.news() == []
    log.note("first")
    assert reader.news() == [{"event": "note", "message": "first"}]
    with open(path, "ab") as file:
        file.write(b'\xff[]{"nobody": 1}\n[1]\n{"event": 3}\n{"event": "note", ')
    assert reader.news() == [], "what is no event is passed over"
    with open(path, "ab") as file:
        file.write(b'"message": "second"}\n')
    assert reader.news() == [{"event": "note", "message": "second"}]
