"""One command at a time works on a run, and a killed one leaves no lock behind."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.errors import StoreError
from kdbench.execution.run_lock import locked
from kdbench.store.run_folder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from kdbench.execution.run_lock import locked
from kdbench.store.run_folder import RunFolder
with locked(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run")


def test_a_second_command_is_refused_and_told_by_whom(run: RunFolder) -> None:
    with locked(run) as note:
        assert note is None
        with (
            pytest.raises(StoreError, match=rf"process {os.getpid()} on {platform.node()}, since 20") as refused,
            locked(run),
        ):
            pass
        assert "--name" in str(refused.value.hint)
    with locked(run) as note:
        assert note is None, "it was given back"


def test_a_killed_command_leaves_no_lock_but_is_mentioned(run: RunFolder) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {holder.pid}"), locked(run):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(run) as note:
        assert note is not None
        assert f"process {holder.pid}" in note
    with locked(run) as note:
        assert note is None


def test_a_damaged_note_stops_nothing(run: RunFolder) -> None:
    (run.path / "lock.json").write_bytes(b"\xff[")
    with locked(run) as note:
        assert note is None


def test_it_is_given_back_whatever_happens(run: RunFolder) -> None:
    with pytest.raises(KeyboardInterrupt), locked(run):
        raise KeyboardInterrupt
    with locked(run) as note:
        assert note is None
