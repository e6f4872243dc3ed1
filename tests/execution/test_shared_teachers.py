"""Runs that have a teacher in common: one trains it, the others wait for it; who is killed leaves nobody waiting."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from kdbench.execution.heartbeat import Heartbeat, last_beat
from kdbench.execution.limits import ClockedObserver, OutOfTime
from kdbench.execution.run_lock import in_turn
from kdbench.profiling import profiled
from kdbench.store.trial_files import TrialFiles

from ..conftest import Notes

TEACHER = "the teacher cnn (seed 0)"
HOLD = """
import sys, time
from pathlib import Path
from kdbench.execution.run_lock import in_turn
from kdbench.training.observer import Observer
with in_turn(Path(sys.argv[1]), "the teacher", Observer()):
    print("held", flush=True)
    time.sleep(600)
"""
PATIENT = '''
"""A network that learns only once a file is there."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from kdbench import hookimpl
from kdbench_plugins.architectures.plain_cnn import PlainCNN


@dataclass(frozen=True)
class Patient(PlainCNN):
    """Builds at once, and then waits in its first step."""

    def build(self, data):
        network = super().build(data)
        network.register_forward_pre_hook(wait)
        return network


def wait(network, inputs):
    while network.training and not Path(os.environ["KDBENCH_TEST_GO"]).exists():
        time.sleep(0.05)


@hookimpl
def kdbench_architectures():
    return {"patient": Patient}
'''

RUN = """
import sys
from pathlib import Path
import torch
from kdbench.data import DataFolders
from kdbench.execution.executors import executor
from kdbench.execution.limits import Limits
from kdbench.execution.work import Work
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.run_folder import RunFolder
from kdbench.suite_file import load_suite
from kdbench.training.observer import Observer

class Aloud(Observer):
    def cohort_started(self, cohort, first_epoch):
        print("training", cohort.head.student, flush=True)

    def note(self, message):
        print(message, flush=True)

suite, out, name, chosen = sys.argv[1:]
plan = make_plan(load_suite(suite), discover(), DataFolders((Path(out),), Path(out)))
run = RunFolder.create(Path(out), name)
work = Work(plan, run, Path(out), torch.device("cpu"), validation_only=True)
for records in executor(chosen).execute(work, Limits(), Aloud()):
    print(*(record.status for record in records), flush=True)
"""

Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, at work on the folder `teacher`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "teacher")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class Killer(Notes):
    """Kills the holder when it waits for it."""

    holder: subprocess.Popen[str]

    def waiting(self) -> None:
        self.holder.send_signal(signal.SIGKILL)


def test_a_killed_holder_leaves_nobody_waiting(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    killer = Killer()
    killer.holder = holder
    with in_turn(tmp_path / "teacher", TEACHER, killer):
        noted = json.loads((tmp_path / "teacher" / "lock.json").read_bytes())
        assert (noted["pid"], noted["host"]) == (os.getpid(), platform.node()), "now it is ours"
    assert len(killer.said) == 1
    assert killer.said[0].startswith(f"waiting for {TEACHER}: another kdbench trains it (process {holder.pid} on ")
    with in_turn(tmp_path / "teacher", TEACHER, killer):
        assert len(killer.said) == 1, "it was given back"


def test_time_that_is_over_ends_the_wait(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    def look() -> None:
        raise OutOfTime("over")

    with pytest.raises(OutOfTime), in_turn(tmp_path / "teacher", TEACHER, ClockedObserver(Notes(), look)):
        pass
    assert holder.poll() is None


def test_waiting_takes_no_time_of_a_trial(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    killer = Killer()
    killer.holder = holder
    with profiled(Heartbeat(tmp_path / "beat")):
        before = last_beat(tmp_path / "beat")
        with in_turn(tmp_path / "teacher", TEACHER, killer):
            after = last_beat(tmp_path / "beat")
    assert before is not None
    assert after is not None
    assert (after.method, after.before) == ("", 0.0)
    assert after.since > before.since


@pytest.fixture
def launch(
    tiny_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Launch, Path]]:
    """Starts runs in processes; all have a teacher in common, and wait in its training until there is a file `go`."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "patient.py").write_text(PATIENT, encoding="utf-8")
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(tmp_path / "plugins"))
    monkeypatch.setenv("KDBENCH_TEST_GO", str(tmp_path / "go"))
    suite = tiny_suite(teachers="'patient[width=0.5]'", tasks="'digits[train_examples=120]'", epochs="1")
    started: list[subprocess.Popen[str]] = []

    def start(name: str, executor: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, str(suite), str(tmp_path / "out"), name, executor]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start, tmp_path
    for process in started:
        with process:
            process.kill()


def test_one_run_trains_it_and_another_takes_it(launch: tuple[Launch, Path]) -> None:
    start, folder = launch
    first = start("first", "local")
    _until(first.stdout, "training patient")
    second = start("second", "processes[workers=2]")
    said = _until(second.stdout, "waiting for the teacher patient[width=0.5] (seed 0): another kdbench trains it")
    assert f"process {first.pid} on {platform.node()}, since 20" in said
    (folder / "go").touch()
    assert first.communicate()[0].split() == ["training", "cnn[width=0.25]", "done", "done"]
    assert second.communicate()[0].split() == ["training", "cnn[width=0.25]", "done", "done"]
    (teacher,) = (folder / "out" / "teachers").iterdir()
    assert TrialFiles(teacher).damage() is None
    assert not (teacher / "lock.json").exists()


def _until(stream: IO[Any] | None, line: str) -> str:
    """What was said up to a line that contains `line`."""
    assert stream is not None
    said = ""
    for each in stream:
        said += each
        if line in each:
            return said
    raise AssertionError(said)
