"""The other ranks of a worker, as seen from the first: processes of its group that train along with it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kdbench.interpreter import command
from kdbench.plan import Cohort


class Followers:
    """Live and die with this process: a rank that ends takes it along, and so the driver learns of it."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._processes = [subprocess.Popen(each, bufsize=0, stdin=subprocess.PIPE) for each in commands]
        for process in self._processes:
            threading.Thread(target=_end_alike, args=(process,), name="kdbench-follower", daemon=True).start()

    @classmethod
    def of_worker(cls, folder: Path, name: str, ranks: int) -> Followers:
        """Starts the ranks of a worker from 1 on."""
        arguments = ("kdbench.execution.worker", str(folder), name, str(ranks))
        return cls([command(*arguments, str(rank)) for rank in range(1, ranks)])

    def tell(self, cohort: Cohort) -> None:
        """Has them train a cohort along. One that is gone is about to take this process along."""
        line = json.dumps([trial.fingerprint for trial in cohort.trials]).encode() + b"\n"
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(line)


def _end_alike(process: subprocess.Popen[bytes]) -> None:
    """Waits for a follower's end, and ends this process by the same signal or with the same status."""
    status = process.wait()
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status or 1)
