"""The executor `slurm`: units as jobs of a cluster, through submitit."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from kdbench.errors import BadInput, MissingExtra
from kdbench.execution.dispatch import Dispatcher
from kdbench.execution.event_log import Event, EventReader
from kdbench.execution.heartbeat import Beat
from kdbench.execution.limits import Limits
from kdbench.execution.pool import Death
from kdbench.execution.supervisor import supervise
from kdbench.execution.units import Unit
from kdbench.execution.work import Job, Work
from kdbench.execution.workplace import Workplace
from kdbench.hyperparameters import Count
from kdbench.measuring.record import Record
from kdbench.training.observer import Observer

if TYPE_CHECKING:
    import submitit


@dataclass(frozen=True)
class Slurm:
    """A job per cohort and per teacher, at most `jobs` at once; --out lies where all nodes see it.

    A job may hold `hours` (afterwards the unit is submitted again and goes on from its last epoch), `cpus`, `memory_gb`
    and `gpus`. `cluster=local` runs the jobs on this machine, to try it out.
    """

    partition: str = ""
    account: str = ""
    jobs: Count = 16
    hours: Count = 24
    cpus: Count = 2
    memory_gb: Count = 16
    gpus: Annotated[int, Ge(0)] = 0
    cluster: Literal["slurm", "local"] = "slurm"

    def execute(self, work: Work, limits: Limits, observer: Observer) -> Generator[list[Record]]:
        """See `Executor`.

        Raises:
            MissingExtra: submitit is not installed.
            BadInput: there is no Slurm here.
        """
        with Workplace.of(work.run) as place:
            place.job.write_text(Job.of(work, limits).model_dump_json())
            pool = _SlurmPool(place, self.jobs, self._submitter(place))
            try:
                yield from Dispatcher(work, pool, limits, place.stop, observer).run()
            finally:
                pool.close()

    def _submitter(self, place: Workplace) -> submitit.AutoExecutor:
        try:
            import submitit
        except ImportError:
            raise MissingExtra("the executor 'slurm'", "slurm") from None
        try:
            submitter = submitit.AutoExecutor(place.folder / "jobs", cluster=self.cluster)
        except RuntimeError as error:  # no sbatch
            raise BadInput(
                f"the executor 'slurm' cannot be used here: {error}", hint="run it on a login node"
            ) from None
        on_slurm = {"partition": self.partition, "account": self.account}
        submitter.update_parameters(
            name="kdbench",
            timeout_min=60 * self.hours,
            cpus_per_task=self.cpus,
            mem_gb=self.memory_gb,
            gpus_per_node=self.gpus,
            **{f"slurm_{key}": value for key, value in on_slurm.items() if value and self.cluster == "slurm"},
        )
        return submitter


class _SlurmPool:
    def __init__(self, place: Workplace, slots: int, submitter: submitit.AutoExecutor) -> None:
        self.slots = slots
        self._place, self._submitter = place, submitter
        self._count = 0
        self._running: list[_SlurmAttempt] = []

    def start(self, unit: Unit) -> _SlurmAttempt:
        """Submits the unit."""
        name = f"unit-{self._count}"
        self._count += 1
        job = self._submitter.submit(supervise, str(self._place.folder), name, unit.fingerprints)
        attempt = _SlurmAttempt(unit, job, EventReader(self._place.folder / f"{name}.events"), self._running)
        self._running.append(attempt)
        return attempt

    def close(self) -> None:
        """Cancels what still waits or runs."""
        for attempt in list(self._running):
            attempt.kill()


class _SlurmAttempt:
    """A job. What it returns is never read, because submitit would unpickle it: its events say everything."""

    def __init__(self, unit: Unit, job: submitit.Job[Any], events: EventReader, running: list[_SlurmAttempt]) -> None:
        self.unit, self._job, self._events, self._running = unit, job, events, running

    def news(self) -> list[Event]:
        """What it told since the last call."""
        return self._events.news()

    def death(self) -> Death | None:
        """None until the job is over."""
        if not self._job.done():
            return None
        said = (self._job.stderr() or "").strip()[-4000:]
        return Death("killed", f"its job {self._job.job_id} ended ({self._job.state.lower()})", said=said)

    def beat(self) -> Beat | None:
        """Not seen from here; the job's own supervisor looks at it."""
        return None

    def growth(self) -> int:
        """Not seen from here either."""
        return 0

    def kill(self) -> None:
        """Cancels it."""
        self.close()
        if not self._job.done():
            self._job.cancel()

    def close(self) -> None:
        """Its unit is over, and the job ends by itself."""
        self._running.remove(self)
