"""`python -m kdbench.execution.worker FOLDER NAME RANKS [RANK]`: trains what arrives as lines on standard input.

The first rank is given units. It stores trials as the local executor does, and tells the driver the rest through
`FOLDER/NAME.events`. It starts the other ranks, and gives them the cohorts that it trains. When the driver is gone it
ends at once, with all that it started: whatever it was at goes on from its last epoch another time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from kdbench.errors import KdbenchError
from kdbench.execution.event_log import EventLog
from kdbench.execution.followers import Followers
from kdbench.execution.heartbeat import Heartbeat
from kdbench.execution.limits import ClockedObserver, DeviceUse, OutOfTime
from kdbench.execution.local import CohortRunner, Teacher, TeacherFailed
from kdbench.execution.process_group import ProcessGroup, adopt_orphans
from kdbench.execution.work import Job, Work, check_same
from kdbench.plan import Cohort, Trial
from kdbench.profiling import profiled
from kdbench.training.observer import Observer
from kdbench.training.ranks import Ranks
from kdbench.training.trained import Trained

Orders = Iterator[list[str]]  # lists of fingerprints


def main(folder: Path, name: str, size: int, rank: int = 0) -> None:
    """Serves until standard input ends."""
    adopt_orphans()
    orders = _orders()
    with profiled(Heartbeat(folder / (f"{name}-{rank}.beat" if rank else f"{name}.beat"))) as heartbeat:
        assert isinstance(heartbeat, Heartbeat)
        if rank:
            _follow(folder, name, size, rank, orders)
            return
        log = EventLog(folder / f"{name}.events")
        try:
            _lead(folder, name, size, orders, log, heartbeat)
        except OutOfTime:
            log.write("stopped")
        except KdbenchError as error:
            log.write("broken", message=error.message, hint=error.hint)


def _lead(folder: Path, name: str, size: int, units: Orders, log: EventLog, heartbeat: Heartbeat) -> None:
    def look() -> None:
        if (folder / "stop").exists():
            raise OutOfTime("the driver asks to stop")

    followers = Followers.of_worker(folder, name, size)  # they plan while this process does
    job = _job(folder)
    work = job.work()
    trials = _trials(work)
    ranks = Ranks.join(folder / f"{name}.ranks", 0, size, work.device)
    runner = _Leader(work, ClockedObserver(log, look), ranks, followers, job.use)
    for fingerprints in units:
        check_same(work, set(fingerprints))
        asked = tuple(trials[fingerprint] for fingerprint in fingerprints)
        heartbeat.rest()
        log.write("unit_started", held=ProcessGroup.own().usage().resident_bytes)
        if asked[0].reference is None:
            with suppress(TeacherFailed):  # its record says so
                runner.teacher(asked[0])
        else:
            runner.run_cohort(Cohort(asked))
        log.write("unit_ended")


def _follow(folder: Path, name: str, size: int, rank: int, cohorts: Orders) -> None:
    job = _job(folder)
    work = job.work()
    trials = _trials(work)
    ranks = Ranks.join(folder / f"{name}.ranks", rank, size, work.device)
    runner = _Follower(work.plan, work.run, work.out, work.device, Observer(), work.validation_only, ranks, job.use)
    for fingerprints in cohorts:
        runner.train_along(Cohort(tuple(trials[fingerprint] for fingerprint in fingerprints)))


class _Leader(CohortRunner):
    """Has the other ranks train along what it trains."""

    def __init__(self, work: Work, observer: Observer, ranks: Ranks, followers: Followers, use: DeviceUse) -> None:
        super().__init__(work.plan, work.run, work.out, work.device, observer, work.validation_only, ranks, use)
        self._followers = followers

    def _train(self, cohort: Cohort, teachers: Mapping[str, Teacher]) -> Iterator[Trained]:
        self._followers.tell(cohort)
        return super()._train(cohort, teachers)


class _Follower(CohortRunner):
    """Decides nothing and stores nothing."""

    def train_along(self, cohort: Cohort) -> None:
        """Trains a cohort whose teachers the leader has trained and stored."""
        teachers = {teacher.fingerprint: self.teacher(teacher) for teacher in cohort.teachers}
        for _ in self._train(cohort, teachers):
            pass  # told and stored by the leader, to which the same happened


def _job(folder: Path) -> Job:
    return Job.model_validate_json((folder / "job.json").read_bytes())


def _trials(work: Work) -> dict[str, Trial]:
    return {trial.fingerprint: trial for trial in (*work.plan.trials, *work.plan.teachers)}


def _orders() -> Orders:
    """What arrives on standard input. Methods find it empty."""
    arrived: SimpleQueue[list[str]] = SimpleQueue()
    with open(os.devnull) as nothing:
        lines = os.fdopen(os.dup(0), encoding="utf-8")
        os.dup2(nothing.fileno(), 0)

    def listen() -> None:
        for line in lines:
            arrived.put(json.loads(line))
        if os.getpgrp() == os.getpid():
            ProcessGroup.own().kill()
        os._exit(1)

    threading.Thread(target=listen, name="kdbench-driver", daemon=True).start()
    return iter(arrived.get, None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
