"""The memory of a cohort is told before it is trained, and what would not fit together is trained in parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdbench.data import DataFolders
from kdbench.errors import BadInput
from kdbench.execution.limits import DeviceUse, Limits
from kdbench.execution.local import execute
from kdbench.execution.work import Job, Work
from kdbench.measuring.record import Record
from kdbench.plan import Cohort, Plan, Trial
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training import memory as memory_module
from kdbench.training.allocations import Course
from kdbench.training.cohort import train
from kdbench.training.memory import CohortMemory, DeviceMemory, Footprint, Forecaster, weights_bytes
from kdbench.training.memory import _Deserted as Deserted
from kdbench.training.observer import Observer
from kdbench.training.ranks import ALONE, Ranks

from .conftest import Notes

CPU = torch.device("cpu")


@pytest.fixture
def plan(tiny_suite: Callable[..., Path], tmp_path: Path) -> Callable[..., Plan]:
    def build(batch: int = 32, **changes: str) -> Plan:
        path = tiny_suite(**changes)
        path.write_text(path.read_text().replace("batch_size: 32", f"batch_size: {batch}"))
        return make_plan(load_suite(str(path)), discover(), DataFolders((tmp_path,), tmp_path))

    return build


def networks(plan: Plan, teachers: Iterable[Trial]) -> dict[str, nn.Module]:
    found = {}
    for teacher in teachers:
        torch.manual_seed(0)
        found[teacher.fingerprint] = plan.architectures[teacher.student].build(plan.tasks[teacher.task].data.spec)
    return found


def forecast(plan: Plan, cohort: Cohort, said: list[str] | None = None, ranks: int = 1) -> CohortMemory:
    forecaster = Forecaster(plan.architectures, DeviceMemory(CPU), (said if said is not None else []).append, ranks)
    return forecaster.forecast(cohort, plan.tasks[cohort.head.task], networks(plan, cohort.teachers))


def allocated(work: Callable[[], object], trace: Path) -> int:
    """The most bytes at once that torch's allocator gave out for `work`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    profiled.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    return max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")


def train_for_real(plan: Plan, cohort: Cohort, folder: Path, ranks: Ranks = ALONE) -> None:
    """With teachers and all, as `CohortRunner` has it."""
    folder.mkdir()
    teachers, loaded = networks(plan, cohort.teachers), plan.tasks[cohort.head.task]
    ended = train(
        cohort,
        loaded,
        plan.architectures,
        teachers,
        lambda trial: folder / trial.fingerprint,
        CPU,
        Observer(),
        ranks=ranks,
    )
    for trained in ended:
        assert trained.status == "done", trained.error


def test_the_forecast_is_what_training_takes(plan: Callable[..., Plan], tmp_path: Path) -> None:
    here = plan(
        batch=64,  # beyond what is tried
        methods="kd, fitnets, rkd, crd, dml, data_free",
        teachers="resnet20",
        student="cnn",
        epochs="1",
        tasks="'digits[train_examples=200]'",
    )
    cohorts = [*here.cohorts, *(Cohort((trial,)) for trial in here.cohorts[0].trials)]
    assert len(cohorts) == 8
    errors = {}
    for number, cohort in enumerate(cohorts):
        name = " ".join(trial.method_name for trial in cohort.trials)
        told = forecast(here, cohort).peak(cohort.trials)
        taken = allocated(
            lambda cohort=cohort, number=number: train_for_real(here, cohort, tmp_path / str(number)),  # type: ignore[misc]
            tmp_path / "trace.json",
        )
        errors[name] = told / taken - 1
    assert max(map(abs, errors.values())) < 0.15, errors


@pytest.mark.parametrize(("method", "least", "most"), [("kd", 0.3, 0.6), ("rkd", 0.8, 1.0)])
def test_a_rank_takes_networks_of_its_share_and_losses_of_the_batch(
    method: str, least: float, most: float, plan: Callable[..., Plan], tmp_path: Path
) -> None:
    networks = {"teachers": "resnet20", "student": "resnet8"}
    here = plan(batch=96, epochs="1", methods=method, tasks="'digits[train_examples=250]'", **networks)
    (cohort,) = here.cohorts
    whole, own = forecast(here, cohort), forecast(here, cohort, ranks=3)
    trial = cohort.trials[-1]
    assert least < own.trials[trial].step / whole.trials[trial].step < most
    taken = allocated(lambda: train_for_real(here, cohort, tmp_path / "one", Deserted(size=3)), tmp_path / "trace.json")
    assert own.peak(cohort.trials) == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize(
    ("size", "ranks", "tried"),
    [(128, 1, {16, 32}), (20, 1, {10, 20}), (3, 1, {2, 3}), (96, 3, {15, 30}), (256, 16, {32, 64}), (20, 8, {16, 20})],
)
def test_ranks_have_even_shares_of_what_is_tried(size: int, ranks: int, tried: set[int]) -> None:
    assert memory_module._tried(size, ranks) == tried


def test_a_forecast_leaves_no_trace(plan: Callable[..., Plan]) -> None:
    here = plan(methods="kd, crd, explanation_guided")
    (cohort,) = here.cohorts
    teachers = networks(here, cohort.teachers)
    before = {name: value.clone() for each in teachers.values() for name, value in each.state_dict().items()}
    generator = torch.get_rng_state()
    forecaster = Forecaster(here.architectures, DeviceMemory(CPU), pytest.fail)
    first = forecaster.forecast(cohort, here.tasks[cohort.head.task], teachers)
    assert torch.get_rng_state().equal(generator)
    assert all(value.equal(before[name]) for each in teachers.values() for name, value in each.state_dict().items())
    assert not any(module._forward_hooks for each in teachers.values() for module in each.modules())
    assert forecast(here, cohort) == first


def test_a_method_that_fails_is_no_obstacle(plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    here = plan(methods="kd, rkd")
    (cohort,) = here.cohorts
    rkd = next(trial for trial in cohort.trials if trial.method_name == "rkd")

    def exits(self: Any, step: Any) -> Any:
        raise SystemExit(3)

    monkeypatch.setattr(type(rkd.method), "losses", exits)
    said: list[str] = []
    assert forecast(here, cohort, said).trials[rkd] == Footprint(0, 0)
    assert said == ["cannot tell the memory of rkd: SystemExit: 3"]


def test_what_is_not_trained_has_no_gradients(plan: Callable[..., Plan]) -> None:
    here = plan(methods="int8")
    cohort = next(each for each in here.cohorts if each.head.method_name == "int8")
    (kept,) = (footprint.kept for footprint in forecast(here, cohort).trials.values())
    (teacher,) = networks(here, cohort.teachers).values()
    assert kept == pytest.approx(weights_bytes(teacher), rel=0.1)


def course(*events: int, sizes: list[float]) -> Course:
    return Course(np.array(sizes, np.float64), np.array(events))


def test_each_storage_grows_by_its_own_power() -> None:
    events = (0, 1, -2, 2, -3, 3)  # kept; two in turn; kept
    small = course(*events, sizes=[100, 40, 1, 10])
    large = course(*events, sizes=[100, 80, 4, 20])
    assert (large.peak, large.left) == (180, 120)
    grown = large.grown(small, ratio=2, factor=16)
    assert grown.sizes == pytest.approx([100, 1280, 1024, 320])
    assert (grown.peak, grown.left) == (1380, 420)


def test_where_other_operations_ran_peak_and_end_grow() -> None:
    small = course(0, 1, -2, sizes=[100, 50])
    large = course(0, 1, 2, -2, -3, sizes=[100, 50, 150])
    grown = large.grown(small, ratio=2, factor=2)
    assert (grown.left, grown.peak) == (100, 100 + 800)


def memory(
    plan: Plan, *footprints: tuple[int, int], before: int = 0, shared: int = 0, passing: int = 0
) -> CohortMemory:
    trials = plan.cohorts[0].trials
    own = {trial: Footprint(*each) for trial, each in zip(trials, footprints, strict=True)}
    return CohortMemory(1, before, shared, passing, own)


def test_parts_are_few_and_fit(plan: Callable[..., Plan]) -> None:
    five = plan(methods="kd, fitnets, attention_transfer, rkd")
    found = memory(five, (30, 10), (50, 10), (20, 60), (60, 10), (10, 10), shared=4, passing=15)
    trials = tuple(found.trials)
    assert found.peak(trials) == 5 + 170 + 60
    assert found.parts(235) == [trials]
    parts = found.parts(130)
    assert [[trials.index(trial) for trial in part] for part in parts] == [[0, 2, 4], [1, 3]]
    assert all(found.peak(part) <= 130 for part in parts)
    assert found.parts(1) == [(trial,) for trial in trials]


def test_several_streams_lend_one_another_nothing(plan: Callable[..., Plan]) -> None:
    found = memory(plan(methods="kd, rkd"), (30, 10), (30, 25), (30, 20), shared=4, passing=40)
    trials = tuple(found.trials)
    assert found.peak(trials) == 5 + 90 + 40
    side_by_side = replace(found, streams=2)
    assert side_by_side.peak(trials) == 5 + 90 + 40 + 25 + 20
    assert side_by_side.peak(trials[:1]) == found.peak(trials[:1])


def test_answers_are_stored_before_there_are_students(plan: Callable[..., Plan]) -> None:
    found = memory(plan(), (30, 10), (30, 10), before=75)
    first, second = found.trials
    assert found.peak([first]) == 76
    assert found.peak([first, second]) == 76
    assert replace(found, before=60).peak([first, second]) == 71


@pytest.mark.parametrize(("free", "sets"), [(28_799, 0), (28_800, 1), (35_999, 1), (36_000, 2)])
def test_stored_answers_that_stay_on_the_device_count(
    free: int, sets: int, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceMemory, "fits_data", lambda memory, size: size <= free / 4)
    here = plan(methods="ensemble", recipe="  speedups: [stored_answers]")
    without = plan(methods="ensemble")
    answers = 4 * 10 * len(here.tasks["digits[train_examples=200]"].data.train)  # of one of two teachers
    assert answers == 7200
    shared = [forecast(each, each.cohorts[0]).shared for each in (here, without)]
    assert shared[0] - shared[1] == sets * answers


def test_only_cuda_or_the_user_sets_bounds() -> None:
    assert DeviceMemory(CPU).room_for([]) is None
    assert DeviceMemory(CPU, 0.5).room_for([nn.Linear(3, 3)]) == 0.5e9
    assert not DeviceMemory(CPU, 0.5).fits_data(1)


def test_free_memory_is_what_cuda_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (900, 2000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    cuda, teacher = DeviceMemory(torch.device("cuda")), nn.Linear(3, 3)
    assert cuda.room_for([teacher]) == pytest.approx(0.8 * 1000 + 4 * (9 + 3))
    assert cuda.fits_data(250)
    assert not cuda.fits_data(251)


@pytest.mark.parametrize(
    ("free", "held", "room"),
    [
        (1800, 100, 900),  # nobody else has begun: half of the device, less what is held
        (600, 300, 600),  # the other has taken more than half
        (900, 1100, 0),  # this one has
    ],
)
def test_processes_that_share_a_device_count_on_an_even_part_of_it(
    free: int, held: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2000))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: held)
    cuda = DeviceMemory(torch.device("cuda"), sharers=2)
    assert cuda.room_for([]) == pytest.approx(0.8 * room)
    assert cuda.fits_data(room // 4)
    assert not cuda.fits_data(room // 4 + 1)


def ended(plan: Plan, out: Path, notes: Notes, gigabytes: float | None) -> dict[str, Record]:
    run = RunFolder.create(out, "run")
    work = execute(plan, run, out, CPU, notes, validation_only=True, use=DeviceUse(gigabytes))
    return {record.method: record for records in work for record in records}


def test_parts_come_to_the_same_bits(plan: Callable[..., Plan], tmp_path: Path) -> None:
    here, notes = plan(methods="kd, fitnets, crd", epochs="1"), Notes()
    together = ended(here, tmp_path / "together", notes, None)
    assert not notes.said
    apart = ended(here, tmp_path / "apart", notes, 1e-6)
    (said,) = notes.said
    assert said.startswith("4 students of seed 0 would take 0.0")
    assert "GB together, and there are 1e-06: they are trained in 4 parts, of at most 0.0" in said
    assert {name: (record.metrics, record.curves) for name, record in apart.items()} == {
        name: (record.metrics, record.curves) for name, record in together.items()
    }


def test_enough_memory_leaves_a_cohort_whole(plan: Callable[..., Plan], tmp_path: Path) -> None:
    notes = Notes()
    ended(plan(methods="kd", epochs="1"), tmp_path / "out", notes, 1.0)
    assert not notes.said


def test_workers_get_the_limit(plan: Callable[..., Plan], tmp_path: Path) -> None:
    here = plan(methods="kd")
    work = Work(here, RunFolder.create(tmp_path, "run"), tmp_path, CPU)
    job = Job.of(work, Limits(cohort_memory=0.25, streams=3), sharers=2)
    assert Job.model_validate_json(job.model_dump_json()).use == DeviceUse(0.25, streams=3, sharers=2)


def test_a_limit_is_above_0(tiny_suite: Callable[..., Path], kdbench: Callable[..., tuple[int, str, str]]) -> None:
    with pytest.raises(BadInput, match="--cohort-memory -1: must be above 0"):
        Limits(cohort_memory=-1)
    status, _, messages = kdbench("run", str(tiny_suite()), "--cohort-memory", "0")
    assert status == 2
    assert "--cohort-memory 0: must be above 0" in messages
