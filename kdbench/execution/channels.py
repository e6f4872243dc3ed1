"""Channel: how the driver of a run and the nodes of a cluster talk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from kdbench.execution.event_log import Event, EventReader
from kdbench.execution.supervisor import supervise
from kdbench.execution.units import Unit
from kdbench.execution.work import Job
from kdbench.execution.workplace import StopSign, Workplace
from kdbench.interpreter import import_path
from kdbench.measuring.record import Record

# A function that any node can import, and what it is called with there: plain values.
Task = tuple[Callable[..., None], tuple[Any, ...]]


class Events(Protocol):
    """What a node tells of a unit."""

    def news(self) -> list[Event]:
        """The events since the last call."""


class Channel(Protocol):
    """The driver's end."""

    @property
    def stop(self) -> StopSign:
        """Tells all nodes to stop."""

    def runtime_env(self) -> dict[str, Any]:
        """Ray's, in which nodes find the modules that this process does."""

    def open(self, job: Job) -> list[Record]:
        """Leaves the job for the nodes; the records that nodes of an earlier command made and nobody has taken."""

    def task(self, name: str, unit: Unit) -> Task:
        """What a node is to call for a unit, which `name` tells from all others of this command."""

    def events(self, name: str, unit: Unit) -> Events:
        """What it will tell. A trial's files are here once it is told to be stored."""

    def close(self, over: bool) -> None:
        """Ends the talk; `over`: nothing of the run will be gone on with."""


class FolderChannel:
    """A folder that the driver and all nodes see under the same path, as they do plugins and data."""

    def __init__(self, place: Workplace) -> None:
        self._place = place

    @property
    def stop(self) -> Path:
        """See `Channel`."""
        return self._place.stop

    def runtime_env(self) -> dict[str, Any]:
        """See `Channel`."""
        return {"env_vars": {"PYTHONPATH": import_path()}}

    def open(self, job: Job) -> list[Record]:
        """See `Channel`; nodes write records where they belong."""
        self._place.job.write_text(job.model_dump_json())
        return []

    def task(self, name: str, unit: Unit) -> Task:
        """See `Channel`."""
        return supervise, (str(self._place.folder), name, unit.fingerprints)

    def events(self, name: str, unit: Unit) -> EventReader:
        """See `Channel`."""
        return EventReader(self._place.folder / f"{name}.events")

    def close(self, over: bool) -> None:
        """See `Channel`; the folder goes with the block that made it."""
