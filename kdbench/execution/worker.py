"""`python -m kdbench.execution.worker FOLDER NAME`: trains the units that arrive as lines on standard input.

It stores trials as the local executor does, and tells the driver the rest through `FOLDER/NAME.events`. When the driver
is gone it ends at once, with all that it started: whatever it was at goes on from its last epoch another time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from kdbench.errors import KdbenchError
from kdbench.execution import process_group
from kdbench.execution.event_log import EventLog
from kdbench.execution.heartbeat import Heartbeat
from kdbench.execution.limits import ClockedObserver, OutOfTime
from kdbench.execution.local import CohortRunner, TeacherFailed
from kdbench.execution.work import Job, check_same
from kdbench.plan import Cohort
from kdbench.profiling import profiled


def main(folder: Path, name: str) -> None:
    """Serves until standard input ends."""
    units = _units()
    log = EventLog(folder / f"{name}.events")
    try:
        with profiled(Heartbeat(folder / f"{name}.beat")) as heartbeat:
            assert isinstance(heartbeat, Heartbeat)
            _serve(folder, units, log, heartbeat)
    except OutOfTime:
        log.write("stopped")
    except KdbenchError as error:
        log.write("broken", message=error.message, hint=error.hint)


def _serve(folder: Path, units: Iterator[list[str]], log: EventLog, heartbeat: Heartbeat) -> None:
    def look() -> None:
        if (folder / "stop").exists():
            raise OutOfTime("the driver asks to stop")

    work = Job.model_validate_json((folder / "job.json").read_bytes()).work()
    trials = {trial.fingerprint: trial for trial in (*work.plan.trials, *work.plan.teachers)}
    observer = ClockedObserver(log, look)
    runner = CohortRunner(work.plan, work.run, work.out, work.device, observer, work.validation_only)
    for fingerprints in units:
        check_same(work, set(fingerprints))
        asked = tuple(trials[fingerprint] for fingerprint in fingerprints)
        heartbeat.rest()
        log.write("unit_started", held=process_group.usage(os.getpgrp()).resident_bytes)
        if asked[0].reference is None:
            with suppress(TeacherFailed):  # its record says so
                runner.teacher(asked[0])
        else:
            runner.run_cohort(Cohort(asked))
        log.write("unit_ended")


def _units() -> Iterator[list[str]]:
    """Lists of fingerprints. Methods find standard input empty."""
    arrived: SimpleQueue[list[str]] = SimpleQueue()
    with open(os.devnull) as nothing:
        lines = os.fdopen(os.dup(0), encoding="utf-8")
        os.dup2(nothing.fileno(), 0)

    def listen() -> None:
        for line in lines:
            arrived.put(json.loads(line))
        if os.getpgrp() == os.getpid():
            process_group.kill(os.getpid())
        os._exit(1)

    threading.Thread(target=listen, name="kdbench-driver", daemon=True).start()
    while True:
        yield arrived.get()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
