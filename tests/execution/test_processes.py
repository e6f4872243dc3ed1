"""Workers on this machine: the same records bit for bit, whatever becomes of a worker."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdbench.errors import BadInput, KdbenchError, UnknownName
from kdbench.execution import processes
from kdbench.execution.executors import Local, executor
from kdbench.execution.limits import Limits, OutOfTime
from kdbench.execution.processes import Processes
from kdbench.execution.work import Work
from kdbench.measuring.record import Record
from kdbench.plan import Cohort

from ..conftest import Notes
from .conftest import reproduced

MakeWork = Callable[..., Work]
CarryOut = Callable[..., dict[str, Record]]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The worker processes, as they are started."""
    started: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(processes.subprocess, "Popen", Watched)
    return started


class Killer(Notes):
    """Kills the first worker when the students' first epoch is over."""

    workers: list[subprocess.Popen[bytes]]
    victims = 0

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
        if cohort.head.reference is not None and not self.victims:
            self.victims += 1
            self.workers[-1].send_signal(signal.SIGKILL)


def test_records_are_those_of_this_process_bit_for_bit(work: MakeWork, carry_out: CarryOut) -> None:
    suite = {"teachers": "'cnn[width=0.5]', 'cnn[width=0.5]'", "epochs": "1", "validation_only": False}
    here = carry_out(Local(), work("here", **suite))
    there = carry_out(Processes(workers=2), work("there", **suite))
    assert reproduced(there) == reproduced(here)
    assert {record.status for record in there.values()} == {"done"}


def test_a_killed_worker_costs_nothing(
    work: MakeWork, carry_out: CarryOut, workers: list[subprocess.Popen[bytes]]
) -> None:
    here = carry_out(Local(), work("here", methods="kd, rkd", epochs="4"))
    killer = Killer()
    killer.workers = workers
    there = carry_out(Processes(workers=1), work("there", methods="kd, rkd", epochs="4"), observer=killer)
    assert reproduced(there) == reproduced(here)
    assert killer.victims == 1
    assert any("killed by SIGKILL" in said for said in killer.said)
    assert all(worker.poll() is not None for worker in workers), "no worker is left behind"


@pytest.mark.usefixtures("menaces")
@pytest.mark.parametrize(
    ("menace", "limits", "reason"),
    [
        ("loops", Limits(trial_minutes=1 / 6), "it took more than the 0.166667 minutes that --trial-minutes allows"),
        ("hoards", Limits(trial_memory=0.3), "it took more than the 0.3 GB that --trial-memory allows"),
        ("exits", Limits(), "its worker ended with status 7"),
        ("forks", Limits(), None),
    ],
)
def test_a_menace_costs_its_own_trial_only(
    menace: str, limits: Limits, reason: str | None, work: MakeWork, carry_out: CarryOut
) -> None:
    notes = Notes()
    found = carry_out(Processes(workers=2), work(methods=f"kd, {menace}"), limits, notes)
    assert found["kd 0"].status == found["scratch 0"].status == "done"
    assert found[f"{menace} 0"].status == ("failed" if reason else "done")
    assert found[f"{menace} 0"].reason == reason
    assert bool(notes.said) == bool(reason)


@pytest.mark.usefixtures("menaces")
def test_local_takes_a_process_where_a_limit_asks_for_one(work: MakeWork, carry_out: CarryOut) -> None:
    found = carry_out(Local(), work(methods="exits"), Limits(trial_minutes=10))
    assert found["exits 0"].status == "failed"


def test_workers_that_do_not_start_are_an_error(
    work: MakeWork, carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(KdbenchError, match="workers do not start: its worker ended with status 1"):
        carry_out(Processes(workers=1), work())


@pytest.mark.parametrize("chosen", [Local(), Processes(workers=1)])
def test_a_run_stops_in_time_and_goes_on(chosen: Any, work: MakeWork, carry_out: CarryOut) -> None:
    class Until(Notes):
        """Sees to it that time is over when a second epoch is."""

        epochs = 0

        def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
            self.epochs += 1

    class Hours(Limits):
        def clock(self) -> Callable[[], None]:
            def look() -> None:
                if until.epochs >= 2:
                    raise OutOfTime("over")

            return look

    until = Until()
    with pytest.raises(OutOfTime):
        carry_out(chosen, work(epochs="40"), Hours(), until)
    assert 2 <= until.epochs < 40 + 40
    stopped = work(epochs="40")
    checkpoints = list(Path(stopped.out).rglob("checkpoint.safetensors"))
    assert checkpoints, "the epochs that were trained are kept"


def test_limits_are_positive() -> None:
    with pytest.raises(BadInput, match="--trial-minutes 0: must be above 0"):
        Limits(trial_minutes=0)


def test_executors_are_asked_for_by_name_and_settings() -> None:
    assert executor("processes[workers=3]") == Processes(workers=3)
    assert executor("local") == Local()
    with pytest.raises(UnknownName, match="unknown executor 'procesess'\ndid you mean 'processes'"):
        executor("procesess")
    with pytest.raises(BadInput, match="the executor 'processes' has no parameter 'worker'"):
        executor("processes[worker=3]")
    with pytest.raises(BadInput, match="workers='0'"):
        executor("processes[workers=0]")
