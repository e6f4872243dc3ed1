"""One unit on a machine of a cluster: the same worker process, and the same limits on it, as on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.execution.event_log import EventLog
from kdbench.execution.limits import Limits, OutOfTime
from kdbench.execution.processes import carry_out_here
from kdbench.execution.units import Unit
from kdbench.execution.work import Job, Work, check_same
from kdbench.execution.workplace import Workplace


@dataclass(frozen=True)
class _UntilTold(Limits):
    """Those of trials, and the end of the run when the driver says so."""

    told: Callable[[], bool] = field(kw_only=True)

    def clock(self) -> Callable[[], None]:
        def look() -> None:
            if self.told():
                raise OutOfTime("the driver asks to stop")

        return look


def supervise(folder: str, name: str, fingerprints: Sequence[str]) -> None:
    """Carries out one unit of the job in `folder`, which driver and machine share; tells the driver the rest through
    `folder/name.events`. What a method may do to its process, it does to the worker, not to the cluster's own.
    """
    place, log = Workplace(Path(folder)), EventLog(Path(folder) / f"{name}.events")
    with telling(log):
        job = Job.model_validate_json(place.job.read_bytes())
        work, unit = assigned(job, fingerprints)
        with Workplace(place.folder / name) as own:
            carry_out(job, work, unit, own, log, place.stop.exists)


@contextmanager
def telling(log: EventLog) -> Iterator[None]:
    """Has the driver know how the block ended."""
    try:
        yield
        log.write("unit_ended")
    except OutOfTime:
        log.write("stopped")
    except KdbenchError as error:
        log.write("broken", message=error.message, hint=error.hint)


def assigned(job: Job, fingerprints: Sequence[str]) -> tuple[Work, Unit]:
    """The job's work as planned here, and the unit that its driver means.

    Raises:
        StoreError: this machine comes to another plan.
    """
    work = job.work()
    check_same(work, set(fingerprints))
    trials = {trial.fingerprint: trial for trial in (*work.plan.trials, *work.plan.teachers)}
    return work, Unit(tuple(trials[fingerprint] for fingerprint in fingerprints))


def carry_out(
    job: Job, work: Work, unit: Unit, own: Workplace, log: EventLog, told_to_stop: Callable[[], bool]
) -> None:
    """Has the unit done by a worker process of this machine.

    Raises:
        OutOfTime: the driver asked to stop.
        KdbenchError: what concerns all units.
    """
    limits = _UntilTold(
        job.trial_minutes, job.trial_memory, cohort_memory=job.cohort_memory, streams=job.streams, told=told_to_stop
    )
    log.write("unit_started", held=0)
    with closing(carry_out_here(work, limits, own, 1, log, unit)) as done:
        for _ in done:
            pass
