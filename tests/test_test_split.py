"""The test split belongs to the core: nothing that a plugin is handed leads to it, and nobody reads it in training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from kdbench import Method, Needs, Step
from kdbench.data import DataFolders
from kdbench.execution.local import execute
from kdbench.plan import Plan
from kdbench.planner import make_plan
from kdbench.plugins import Origin, Plugin, Registry, discover
from kdbench.splits import TensorSplit
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer

HANDED: list[Any] = []  # all that the method below was given


@dataclasses.dataclass(frozen=True)
class Curious(Method):
    """Keeps everything that it is handed."""

    family: ClassVar[str] = "response"

    @property
    def needs(self) -> Needs:
        return Needs(student=("logits", "stages"), teacher=("logits", "stages"))

    def initial_weights(self, student: Any, teachers: Any) -> dict[str, Tensor]:
        HANDED.append((student, teachers))
        return {}

    def prepare(self, student: nn.Module, parameters: int) -> None:
        HANDED.append(student)

    def deploy(self, student: nn.Module) -> None:
        HANDED.append(student)

    def build_auxiliary(self, example: Step) -> None:
        HANDED.append(example)

    def losses(self, step: Step) -> dict[str, Tensor]:
        if len(HANDED) < 8:
            HANDED.append(step)
        return {"task": step.task_loss(step.student["logits"])}


@dataclasses.dataclass(frozen=True, eq=False)
class Sealed(TensorSplit):
    """A test split that may be read only once training is over."""

    watch: Watch | None = None

    def batches(self, order: Any) -> Iterator[Any]:
        assert self.watch is not None
        self.watch.read += 1
        assert not self.watch.training, "the test split was read while a network was trained"
        return super().batches(order)


class Watch(Observer):
    """Knows whether a cohort is in training, and how often the test split was read."""

    training, read = False, 0

    def cohort_started(self, cohort: Any, first_epoch: int) -> None:
        self.training = True

    def cohort_ended(self, cohort: Any) -> None:
        self.training = False


def planned(suite: Path, folder: Path) -> Plan:
    found = discover()
    curious = Plugin("method", "curious", Curious, Origin("tests", "0", __name__))
    registry = Registry({**found.plugins, "method": {**found.plugins["method"], "curious": curious}})
    return make_plan(load_suite(str(suite)), registry, DataFolders((folder,), folder))


@pytest.fixture
def plan(tiny_suite: Callable[..., Path], tmp_path: Path) -> Plan:
    return planned(tiny_suite(methods="curious, fitnets, kd, dml", epochs="3"), tmp_path)


def test_it_is_read_only_after_training(plan: Plan, tmp_path: Path) -> None:
    watch = Watch()
    tasks = {
        name: dataclasses.replace(
            task,
            data=dataclasses.replace(
                task.data, test=Sealed(task.data.test.inputs, task.data.test.targets, watch)  # type: ignore[attr-defined]
            ),
        )
        for name, task in plan.tasks.items()
    }  # fmt: skip
    run = execute(
        dataclasses.replace(plan, tasks=tasks), RunFolder(tmp_path / "run"), tmp_path, torch.device("cpu"), watch
    )
    records = [record for fresh in run for record in fresh]
    assert {record.status for record in records} == {"done"}
    assert watch.read > len(records)


def test_nothing_that_a_method_is_handed_leads_to_it(plan: Plan, tmp_path: Path) -> None:
    HANDED.clear()
    for _ in execute(plan, RunFolder(tmp_path / "run"), tmp_path, torch.device("cpu"), Observer()):
        pass
    (task,) = plan.tasks.values()
    reached = set(map(id, reachable(HANDED)))
    assert len(HANDED) >= 8
    assert id(task.data.test) not in reached
    assert id(task.data) not in reached
    secret = task.data.test.inputs.untyped_storage().data_ptr()  # type: ignore[attr-defined]
    tensors = [each for each in reachable(HANDED) if isinstance(each, Tensor)]
    assert len(tensors) > 50, "the search sees what is there"
    assert secret not in {tensor.untyped_storage().data_ptr() for tensor in tensors}


def reachable(start: Any) -> Iterator[Any]:
    """Every object that attributes, items, closures and bound methods lead to; not through modules and classes."""
    seen: dict[int, Any] = {}
    waiting = [start]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, ModuleType | type | str | int | float):
            continue
        seen[id(each)] = each
        yield each
        if isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple | set | frozenset):
            waiting += each
        elif isinstance(each, MethodType):
            waiting += [each.__self__, each.__func__]
        elif isinstance(each, FunctionType):
            waiting += [cell.cell_contents for cell in each.__closure__ or ()]
        waiting += [vars(each)] if hasattr(each, "__dict__") else []
