"""Work: what an executor is to do; as JSON, from which a worker elsewhere makes the same plan again."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict

from kdbench.data import DataFolders
from kdbench.errors import StoreError
from kdbench.execution.limits import DeviceUse, Limits
from kdbench.hyperparameters import construct, values
from kdbench.measuring.record import Record
from kdbench.plan import Configuration, Configurations, Plan, TuningCost
from kdbench.planner import Planner
from kdbench.plugins import discover
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import parse_suite
from kdbench.training.observer import Observer

_INHERITED = ("KDBENCH_", "XDG_CACHE_HOME")  # the beginnings of the variables that choose plugins and data


@dataclass(frozen=True)
class Work:
    """A plan to be carried out.

    Attributes:
        out: the folder of all runs; trained teachers are shared between them.
        configurations: what the plan was crossed with; None: the suite's own.
        validation_only: nothing but the validation score is measured, the test split is not opened, no student is kept.
    """

    plan: Plan
    run: RunFolder
    out: Path
    device: torch.device
    configurations: Configurations | None = None
    validation_only: bool = False


class Executor(Protocol):
    """Carries out work; its settings are its fields."""

    def execute(self, work: Work, limits: Limits, observer: Observer) -> Generator[list[Record]]:
        """Trains, measures and stores what has no record yet; yields the new records, bit for bit the same everywhere.

        Raises:
            OutOfTime: the run's time is over. Everything already stored is kept.
            StoreError: results cannot be written. Everything already stored is kept.
        """


class _Asked(BaseModel):
    """A plugin as the suite asks for it."""

    name: str
    params: dict[str, Any]
    flags: tuple[str, ...]


class _Configured(BaseModel):
    task: str
    pair: str
    method: str
    params: dict[str, Any]
    learning_rate_factor: float
    tuning: dict[str, float] | None


class Job(BaseModel):
    """Work as JSON: no network, no pickle.

    Attributes:
        threads: torch's, because the last bits of a result depend on them.
        directory: what relative paths in a task's parameters, or in the variables of `environment`, begin at.
        sharers: how many of the processes that read it compute on one device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    methods: tuple[_Asked, ...]
    seeds: tuple[int, ...]
    selection_epochs: int
    configurations: tuple[_Configured, ...] | None
    run: Path
    out: Path
    device: str
    validation_only: bool
    threads: int
    environment: dict[str, str]
    directory: Path
    trial_minutes: float | None
    trial_memory: float | None
    cohort_memory: float | None
    streams: int
    sharers: int

    @classmethod
    def of(cls, work: Work, limits: Limits, sharers: int = 1) -> Job:
        """`work` for another process that sees the same folders."""
        suite = work.plan.suite
        return cls(
            suite=suite.source,
            methods=tuple(_Asked(name=each.name, params=dict(each.params), flags=each.flags) for each in suite.methods),
            seeds=suite.seeds,
            selection_epochs=suite.selection_epochs,
            configurations=_written(work.configurations),
            run=work.run.path.absolute(),
            out=work.out.absolute(),
            device=str(work.device),
            validation_only=work.validation_only,
            threads=torch.get_num_threads(),
            environment={name: value for name, value in os.environ.items() if name.startswith(_INHERITED)},
            directory=Path.cwd(),
            trial_minutes=limits.trial_minutes,
            trial_memory=limits.trial_memory,
            cohort_memory=limits.cohort_memory,
            streams=limits.streams,
            sharers=sharers,
        )

    @property
    def use(self) -> DeviceUse:
        """What of its device each process may use."""
        return DeviceUse(self.cohort_memory, self.streams, self.sharers)

    def work(self) -> Work:
        """Plans again, with the plugins and data of this process, after taking over variables and threads."""
        os.chdir(self.directory)
        os.environ.update(self.environment)
        torch.set_num_threads(self.threads)
        asked = tuple(Spec(each.name, each.params, each.flags) for each in self.methods)
        changes = {"methods": asked, "seeds": self.seeds, "selection_epochs": self.selection_epochs}
        suite = parse_suite(self.suite).model_copy(update=changes)
        planner = Planner(suite, discover(), DataFolders.from_environment())
        configurations = _read(self.configurations, planner)
        plan = planner.cross(configurations or planner.own)
        device = torch.device(self.device)
        return Work(plan, RunFolder(self.run), self.out, device, configurations, self.validation_only)


def check_same(work: Work, fingerprints: set[str]) -> None:
    """Refuses to train what the driver did not plan.

    Raises:
        StoreError: data, plugins or versions are others here.
    """
    planned = {trial.fingerprint for trial in (*work.plan.trials, *work.plan.teachers)}
    if not fingerprints <= planned:
        hint = "it must find the data, plugins and versions of the command that started it; was one edited meanwhile?"
        raise StoreError("a worker does not come to the plan that it was given", hint=hint)


def _written(configurations: Configurations | None) -> tuple[_Configured, ...] | None:
    if configurations is None:
        return None
    return tuple(
        _Configured(
            task=task,
            pair=pair,
            method=each.method_name,
            params=values(each.method),
            learning_rate_factor=each.learning_rate_factor,
            tuning=asdict(each.tuning) if each.tuning else None,
        )
        for (task, pair), listed in configurations.items()
        for each in listed
    )


def _read(written: tuple[_Configured, ...] | None, planner: Planner) -> Configurations | None:
    if written is None:
        return None
    found: dict[tuple[str, str], list[Configuration]] = {board: [] for board in planner.own}
    for each in written:
        board = (each.task, each.pair)
        kind = next(type(own.method) for own in planner.own[board] if own.method_name == each.method)
        method = construct(kind, each.params, each.method)
        tuning = each.tuning and TuningCost(int(each.tuning["trials"]), each.tuning["flops"], each.tuning["seconds"])
        found[board].append(Configuration(each.method, method, each.learning_rate_factor, tuning or None))
    return found
