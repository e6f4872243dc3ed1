"""`kdbench run` stopped by signals, by the clock, or by another one: what is finished is kept, no worker is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdbench.execution.run_lock import locked
from kdbench.store.run_folder import RunFolder

Kdbench = Callable[..., tuple[int, str, str]]


def workers_of(folder: Path) -> Iterator[int]:
    """The living processes that were started for the run in `folder`."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                yield int(entry.name)
        except OSError:
            continue


def stopped_by(number: int, suite: Path, out: Path, *options: str) -> tuple[int, str]:
    """Starts a run, sends the signal when students are in training; the exit status and what was said."""
    command = [sys.executable, "-m", "kdbench", "run", str(suite), "--out", str(out), "--name", "r", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not list(out.glob("r/trials/*/checkpoint.safetensors")):
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate()
    return process.returncode, said


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("executor", "number", "status"),
    [
        ("local", signal.SIGTERM, 143),  # and Ctrl-C in test_cli.py
        ("processes[workers=1]", signal.SIGTERM, 143),
        ("processes[workers=1]", signal.SIGINT, 130),
    ],
)
def test_a_signal_stops_it_cleanly(
    executor: str, number: int, status: int, tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    suite = tiny_suite(teachers="'cnn[width=0.5]'", epochs="2000", recipe="teacher_recipe: {epochs: 1}")
    out = tmp_path / "out"
    ended, said = stopped_by(number, suite, out, "--executor", executor)
    assert ended == status, said
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    assert not list(workers_of(out))
    with locked(RunFolder(out / "r")) as note:
        assert note is None


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_driver_that_is_killed(tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = tiny_suite(teachers="'cnn[width=0.5]'", epochs="2000", recipe="teacher_recipe: {epochs: 1}")
    out = tmp_path / "out"
    ended, _ = stopped_by(signal.SIGKILL, suite, out, "--executor", "processes[workers=1]")
    assert ended == -signal.SIGKILL
    while list(workers_of(out)):
        time.sleep(0.05)


def test_the_clock_stops_it_between_epochs(kdbench: Kdbench, tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    command = ["run", str(tiny_suite(teachers="'cnn[width=0.5]'")), "--out", str(tmp_path), "--name", "r"]
    status, _, said = kdbench(*command, "--max-hours", "0.0000001")
    assert status == 75
    assert "stopped after 1e-07 h, as --max-hours says" in said
    assert "the same command goes on from here" in said
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_bytes())
    assert len(manifest["sessions"]) == 1


def test_a_run_that_is_worked_on_is_refused(kdbench: Kdbench, tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    with locked(RunFolder.create(tmp_path, "r")):
        status, _, said = kdbench("run", str(tiny_suite()), "--out", str(tmp_path), "--name", "r")
    assert status == 2
    assert f"process {os.getpid()}" in said
    assert not (tmp_path / "r" / "manifest.json").exists()


def test_profiles_are_of_this_process(kdbench: Kdbench, tiny_suite: Callable[..., Path], tmp_path: Path) -> None:
    command = ["run", str(tiny_suite()), "--out", str(tmp_path), "--profile"]
    for elsewhere in (["--executor", "processes"], ["--trial-minutes", "5"]):
        status, _, said = kdbench(*command, *elsewhere)
        assert status == 2
        assert "--profile and --trace see this process only" in said
