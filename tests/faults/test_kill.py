"""`kill -9` at any moment, then the same command again: the same results, bit for bit.

Three moments here; `KDBENCH_KILLS=50 pytest tests/faults/test_kill.py -s` tries fifty.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

KILLS = int(os.environ.get("KDBENCH_KILLS", "3"))

Told = Callable[[str, str, str], None]
Results = Callable[[Path], dict[str, Any]]


class Forks:
    """The process of `forking.py`, which has run `arguments` itself."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log.open("wb")
        script = str(Path(__file__).with_name("forking.py"))
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) != "ready\n":
            assert line, log.read_text(encoding="utf-8")

    def run(self, *arguments: str, killed_after: float | None = None) -> int:
        """The status of a command that is killed after some seconds, if it has not ended by then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(arguments), file=self._process.stdin, flush=True)
        child = int(self._process.stdout.readline())
        killer = threading.Timer(killed_after or 0, lambda: _kill(child))
        if killed_after is not None:
            killer.start()
        status = int(self._process.stdout.readline())
        killer.cancel()
        return status

    def close(self) -> None:
        self._process.communicate()
        self._log.close()


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@pytest.mark.timeout(120 + 30 * KILLS)
def test_at_random_moments(
    suite: Path, begun: Path, unharmed: Path, tmp_path: Path, results: Results, told: Told
) -> None:
    """With MLflow. A run is killed until it ends; then another one is; the first finds a trained teacher."""
    command, log, expected = ("run", str(suite), "--out"), tmp_path / "log.txt", results(unharmed)
    forks = Forks(log, *command, str(shutil.copytree(unharmed, tmp_path / "warm")))
    moments, longest = random.Random(0), 5.0
    kills, out = 0, begun
    while kills < KILLS:
        while kills < KILLS:
            started = time.monotonic()
            status = forks.run(*command, str(out), killed_after=moments.uniform(0, longest))
            if status == 0:
                longest = time.monotonic() - started
                break
            assert status == -signal.SIGKILL, log.read_text(encoding="utf-8")
            kills += 1
            told("kill -9", "at random moments of runs", f"nothing; {_ended(out)} of {len(expected)} had ended")
        assert forks.run(*command, str(out)) == 0, log.read_text(encoding="utf-8")
        assert results(out) == expected
        out = tmp_path / f"killed-{kills}"
    forks.close()


def _ended(out: Path) -> int:
    return len(list(out.rglob("record.json")))
