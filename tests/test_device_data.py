"""Data that stay on the device: moved once, drawn alike, and read without waiting for the device.

Tensors on the device "meta" have no values: whatever would wait for one raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.augmentation import parse
from kdbench.data import DataFolders
from kdbench.execution import local
from kdbench.execution.local import execute
from kdbench.measuring.record import Record
from kdbench.plan import Cohort, LoadedTask, Plan
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.splits import LoadedSplit, TensorSplit, resident
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.task import Data, DataSpec
from kdbench.training import cohort as cohort_module
from kdbench.training.memory import DeviceMemory
from kdbench.training.observer import Observer
from kdbench.training.trained import Trained

CPU, META = torch.device("cpu"), torch.device("meta")


def images(examples: int) -> TensorSplit:
    return TensorSplit(torch.zeros(examples, 1, 8, 8, dtype=torch.uint8), torch.zeros(examples, dtype=torch.int64))


def data(**splits: Any) -> Data:
    return Data(DataSpec((1, 8, 8), 10), **{"train": images(5), "validation": images(3), "test": images(2), **splits})


def device_of(split: Any) -> str:
    assert isinstance(split, TensorSplit)
    return f"{split.inputs.device} {split.targets.device}"


def test_what_training_reads_is_moved_at_once() -> None:
    asked: list[int] = []
    here = data()
    moved = resident(here, META, lambda size: not asked.append(size))  # type: ignore[func-returns-value]
    assert asked == [8 * (64 + 8)]
    assert device_of(moved.train) == device_of(moved.validation) == "meta meta"
    assert moved.test is here.test
    assert (moved.spec, moved.prepare) == (here.spec, here.prepare)


def test_without_room_or_in_files_data_stay() -> None:
    here = data()
    assert resident(here, META, lambda size: False) is here
    files = LoadedSplit([torch.zeros(1, 8, 8)] * 4, torch.zeros(4))  # type: ignore[arg-type]
    read = data(train=files, validation=files)
    assert resident(read, META, pytest.fail) is read
    mixed = resident(data(train=files), META, lambda size: True)
    assert mixed.train is files
    assert device_of(mixed.validation) == "meta meta"


def test_batches_of_resident_data_wait_for_nothing() -> None:
    augment = parse(["crop[padding=2]", "flip"])
    order = torch.randperm(5).split(2)
    drawn = []
    for split in (images(5), images(5).to(META)):
        generator = torch.Generator().manual_seed(0)
        batches = list(split.batches(order))
        augmented = [augment(batch.inputs, generator) for batch in batches]
        assert [len(batch) for batch in batches] == [2, 2, 1]
        assert {batch.indices.device for batch in batches} == {split.inputs.device}
        assert {(each.device, each.shape[1:]) for each in augmented} == {(split.inputs.device, (1, 8, 8))}
        drawn.append(generator.get_state())
    assert drawn[0].equal(drawn[1])  # so that all devices see the same pictures


@pytest.fixture
def plan(tiny_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., Plan]:
    def build(**changes: str) -> Plan:
        return make_plan(load_suite(str(tiny_suite(**changes))), discover(), DataFolders((tmp_path,), tmp_path))

    return build


def ended(plan: Plan, out: Path) -> dict[tuple[str, int], Record]:
    run = RunFolder.create(out, "run")
    work = execute(plan, run, out, CPU, Observer(), validation_only=True)
    return {(record.method, record.seed): record for records in work for record in records}


@pytest.mark.parametrize("train_fraction", ["", "train_fractions: [0.5]"])
def test_resident_data_change_no_bit(
    train_fraction: str, plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = plan(
        methods="kd, crd", seeds="2", epochs="1", recipe=f"  augmentation: ['crop[padding=1]']\n{train_fraction}"
    )
    expected = ended(here, tmp_path / "stays")
    moved: list[torch.device] = []
    given: list[LoadedTask] = []

    def to(split: TensorSplit, device: torch.device) -> TensorSplit:
        moved.append(device)
        return TensorSplit(split.inputs.clone(), split.targets.clone())

    def train(cohort: Cohort, loaded: LoadedTask, *others: Any) -> Iterator[Trained]:
        given.append(loaded)
        return cohort_module.train(cohort, loaded, *others)

    monkeypatch.setattr(TensorSplit, "to", to)
    monkeypatch.setattr(DeviceMemory, "fits_data", lambda memory, size: True)
    monkeypatch.setattr(local, "train", train)
    found = ended(here, tmp_path / "moves")
    assert moved == [CPU, CPU]  # train and validation, once for both seeds, teachers and students
    own = {id(task.data.validation) for task in here.tasks.values()}
    assert not any(id(loaded.data.validation) in own for loaded in given)
    assert {name: (record.metrics, record.curves) for name, record in found.items()} == {
        name: (record.metrics, record.curves) for name, record in expected.items()
    }
