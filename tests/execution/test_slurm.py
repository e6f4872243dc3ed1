"""Jobs through submitit, whose local executor stands for a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from kdbench.errors import BadInput, MissingExtra
from kdbench.execution.executors import Local, executor
from kdbench.execution.slurm import Slurm
from kdbench.execution.work import Work
from kdbench.measuring.record import Record
from kdbench.plan import Cohort

from ..conftest import Notes
from .conftest import reproduced

MakeWork = Callable[..., Work]
CarryOut = Callable[..., dict[str, Record]]


def test_without_submitit_the_extra_is_named(
    work: MakeWork, carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingExtra, match=r"pip install 'kdbench\[slurm\]'"):
        carry_out(Slurm(), work())


def test_where_there_is_no_slurm_it_says_so(
    work: MakeWork, carry_out: CarryOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="the executor 'slurm' cannot be used here"):
        carry_out(Slurm(), work())


def test_settings_are_read() -> None:
    assert executor("slurm[partition=gpu,jobs=4,gpus=1]") == Slurm(partition="gpu", jobs=4, gpus=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit waits for no job's process
@pytest.mark.usefixtures("menaces")
def test_jobs_come_to_the_same_records_and_hold_what_a_method_does(work: MakeWork, carry_out: CarryOut) -> None:
    pytest.importorskip("submitit", reason="the extra 'slurm' is not installed")

    class Seen(Notes):
        epochs = 0

        def epoch_ended(self, cohort: Cohort, epochs: int, curves: Any) -> None:
            self.epochs += len(curves)

    here = carry_out(Local(), work("here"))
    seen = Seen()
    there = carry_out(Slurm(cluster="local", jobs=1), work("there", methods="kd, exits"), observer=seen)
    assert there["exits 0"].status == "failed"
    assert there["exits 0"].reason == "its worker ended with status 7"
    del there["exits 0"]
    assert reproduced(there) == reproduced(here)
    assert seen.epochs >= 6, "progress is seen"
    assert any("exits" in said for said in seen.said)
