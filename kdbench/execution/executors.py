"""The executors by name, and the one that `--executor` asks for."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from kdbench.errors import BadInput, UnknownName
from kdbench.execution.limits import ClockedObserver, DeviceUse, Limits
from kdbench.execution.local import execute
from kdbench.execution.processes import Processes
from kdbench.execution.ray_cluster import Ray
from kdbench.execution.slurm import Slurm
from kdbench.execution.work import Executor, Work
from kdbench.hyperparameters import construct
from kdbench.measuring.record import Record
from kdbench.spec import Spec
from kdbench.training.observer import Observer


@dataclass(frozen=True)
class Local:
    """Cohort by cohort in this process."""

    def execute(self, work: Work, limits: Limits, observer: Observer) -> Generator[list[Record]]:
        """See `Executor`; limits of single trials need a process of their own."""
        if limits.of_trials:
            yield from Processes(workers=1).execute(work, limits, observer)
            return
        clocked = ClockedObserver(observer, limits.clock())
        yield from execute(
            work.plan,
            work.run,
            work.out,
            work.device,
            clocked,
            validation_only=work.validation_only,
            use=DeviceUse(limits.cohort_memory, limits.streams),
        )


EXECUTORS: dict[str, type[Executor]] = {"local": Local, "processes": Processes, "ray": Ray, "slurm": Slurm}


def executor(text: str) -> Executor:
    """The executor written as `NAME[key=value,...]`.

    Raises:
        UnknownName: there is none of that name.
        BadInput: it has no such setting, or not that value.
    """
    spec = Spec.parse(text)
    if spec.name not in EXECUTORS:
        raise UnknownName("executor", spec.name, EXECUTORS)
    if spec.flags:
        raise BadInput(f"--executor {spec}: cannot read '{spec.flags[0]}'", hint="settings are written key=value")
    return construct(EXECUTORS[spec.name], spec.params, where=f"the executor '{spec.name}'")
