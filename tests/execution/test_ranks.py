"""Workers of several ranks: the results of one process but for rounding, whatever becomes of a rank."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.errors import BadInput
from kdbench.execution import processes
from kdbench.execution.executors import Local, executor
from kdbench.execution.limits import DeviceUse, Limits
from kdbench.execution.processes import Processes, ProcessPool
from kdbench.execution.units import Unit
from kdbench.execution.work import Job, Work
from kdbench.execution.workplace import Workplace
from kdbench.measuring.record import Record
from kdbench.plan import Cohort
from kdbench.training.observer import Observer

from ..conftest import Notes

MakeWork = Callable[..., Work]
CarryOut = Callable[..., dict[str, Record]]
SUITE = {"methods": "kd", "epochs": "3", "tasks": "'digits[train_examples=85]'"}


def follower(work: Work) -> int:
    """The process of the second rank."""
    folder = os.fsencode(work.run.path / "workers")
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if folder in words and words[-3:-1] == [b"2", b"1"]:
                return int(entry.name)
    raise AssertionError("there is none")


class Killer(Notes):
    """Kills the second rank when the students' first epoch is over."""

    work: Work
    victims = 0

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
        if cohort.head.reference is not None and not self.victims:
            self.victims += 1
            os.kill(follower(self.work), signal.SIGKILL)


def test_a_killed_rank_costs_nothing(work: MakeWork, carry_out: CarryOut) -> None:
    here = carry_out(Local(), work("here", **SUITE))
    killer = Killer()
    killer.work = work("there", **SUITE)
    there = carry_out(Processes(workers=1, ranks=2), killer.work, observer=killer)
    assert killer.victims == 1
    assert any("its worker was killed by SIGKILL" in said for said in killer.said)
    assert there.keys() == here.keys()
    for name, record in there.items():
        assert record.status == "done"
        assert record.provenance["environment"]["ranks"] == 2
        assert "ranks" not in here[name].provenance["environment"]
        assert record.provenance["machine"] != here[name].provenance["machine"]
        for curve, values in here[name].curves.items():
            assert record.curves[curve] == pytest.approx(values, rel=1e-4)
    with pytest.raises(AssertionError, match="there is none"):
        follower(killer.work)


@pytest.mark.parametrize("device", ["mps", "cuda:0", "meta"])
def test_ranks_need_devices_of_their_own(device: str, work: MakeWork, carry_out: CarryOut) -> None:
    asked = replace(work(), device=torch.device(device))
    with pytest.raises(BadInput, match=f"ranks=2 cannot share --device {device}"):
        carry_out(executor("processes[ranks=2]"), asked)


def test_ranks_need_as_many_cards(work: MakeWork, carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="ranks=2 needs as many CUDA devices; there are 1"):
        carry_out(Processes(ranks=2), replace(work(), device=torch.device("cuda")))


def test_each_worker_has_the_next_cards_or_those_of_the_one_that_it_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, Any]] = []

    class Started:
        pid = 0

        def __init__(self, command: list[str], **options: Any) -> None:
            started.append({"command": command[-1], **options})
            self.stdin = io.BytesIO()

    monkeypatch.setattr(processes.subprocess, "Popen", Started)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    pool = ProcessPool(Workplace(tmp_path), 2, torch.device("cuda"), ranks=2)
    first, *_ = (pool.start(Unit(())) for _ in range(3))
    pool.forget(first)
    pool.start(Unit(()))
    assert [each["command"] for each in started] == ["2", "2", "2", "2"]
    assert [each["env"]["CUDA_VISIBLE_DEVICES"] for each in started] == ["4,5", "6,4", "5,6", "4,5"]


@pytest.mark.parametrize(
    ("device", "cards", "workers", "ranks", "sharers"),
    [("cuda", "4,5,6", 3, 1, 1), ("cuda", "4,5,6", 2, 2, 2), ("cuda", "0", 4, 1, 4), ("cuda:1", "0,1", 3, 1, 3)],
)
def test_workers_know_how_many_share_a_card(
    device: str,
    cards: str,
    workers: int,
    ranks: int,
    sharers: int,
    work: MakeWork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Job] = []

    class Reads:
        def __init__(self, work: Work, pool: ProcessPool, limits: Limits, stop: Path, *_: object) -> None:
            self.job = stop.parent / "job.json"

        def run(self) -> Iterator[list[Record]]:
            told.append(Job.model_validate_json(self.job.read_bytes()))
            yield []

    monkeypatch.setattr(processes, "Dispatcher", Reads)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards.split(",")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards)
    asked = replace(work(), device=torch.device(device))
    list(Processes(workers=workers, ranks=ranks).execute(asked, Limits(streams=4), Observer()))
    assert [job.use for job in told] == [DeviceUse(None, streams=4, sharers=sharers)]
