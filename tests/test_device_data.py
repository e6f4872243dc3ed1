"""Data that stay on the device: moved once, drawn alike, and read without waiting for the device.

Tensors on the device "meta" have no values: whatever would wait for one raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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
from kdbench.training import prediction
from kdbench.training.cohort import Trained
from kdbench.training.learner import Learner
from kdbench.training.memory import DeviceMemory
from kdbench.training.observer import Observer
from kdbench.training.teachers import TeacherPanel

CPU, META = torch.device("cpu"), torch.device("meta")

# What the others wait for at every step. dkd, ofa and tf_kd would, but only on the CPU: torch's one_hot checks labels
# there, and leaves that to the kernel on CUDA.
NATURE = {
    "crd": "aten._local_scalar_dense",  # the largest index that its memory must hold
    "class_mean_teacher": "aten._local_scalar_dense",  # one_hot
    "dkd": "aten._local_scalar_dense",
    "ofa": "aten._local_scalar_dense",
    "tf_kd": "aten._local_scalar_dense",
}
METHODS = (
    *("kd", "fitnets", "attention_transfer", "rkd", "born_again", "cc", "deep_supervision", "dist", "dml", "ensemble"),
    *("explanation_guided", "label_smoothing", "logit_standardization", "magnitude_pruning", "pkt", "reviewkd"),
    *("self_distillation", "shuffled_teacher", "sp", "vid", "data_free"),
)


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


class Waits(TorchDispatchMode):
    """Notes the operations that a device must have finished all before: what they return depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if _waits(func, args):
            self.seen.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def _waits(func: Any, args: tuple[Any, ...]) -> bool:
    if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    made = func is torch.ops.aten.lift_fresh.default  # torch.tensor(...), whose values are sent to the device
    return made or bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


def test_steps_do_not_wait_for_the_device(plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    here = plan(methods=", ".join((*METHODS, *NATURE)), student="resnet8", teachers="resnet8, resnet8")
    waiting: dict[str, set[str]] = {}

    def leaves(*_: Any) -> NoReturn:
        raise AssertionError("a tensor is read by Python")

    for cohort in here.cohorts:
        loaded = here.tasks[cohort.head.task]
        spec = loaded.data.spec
        teachers = {each.fingerprint: here.architectures[each.student].build(spec) for each in cohort.teachers}
        panel = TeacherPanel(cohort.trials, teachers, here.architectures, loaded.task)
        batches = prediction.prepared(loaded.data.train, [torch.arange(16)] * 3, loaded.data, CPU)
        first = next(batches)
        for trial in cohort.trials:
            learner = Learner(trial, loaded, here.architectures[trial.student], CPU)
            answers = panel(first)
            learner.begin(first, answers, panel.weights(trial), panel.tapped(trial))
            learner.advance(first, answers, 0, 3)  # which makes the optimiser's slots
            with monkeypatch.context() as patched, Waits() as waits:
                for name in ("tolist", "numpy", "cpu"):  # not seen by a mode on the CPU
                    patched.setattr(Tensor, name, leaves)
                for step in (1, 2):
                    learner.advance(first, panel(first), step, 3)
            waiting[trial.method_name] = waits.seen
    assert set(waiting) == {*METHODS, *NATURE, "scratch"}
    assert waiting == {name: {NATURE[name]} if name in NATURE else set() for name in waiting}
