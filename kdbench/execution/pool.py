"""Attempt, Pool: the small interface between the dispatcher and what runs its units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from kdbench.execution.event_log import Event
from kdbench.execution.heartbeat import Beat
from kdbench.execution.units import Unit


@dataclass(frozen=True)
class Death:
    """The end of a worker in the midst of a unit.

    Attributes:
        kind: over a limit ("time", "memory"), by its own doing ("exit"), or killed from outside ("killed"), which says
            nothing against the trial that was at work.
        reason: for people; in the record of a trial that is to blame.
        method: the method at work; "": none in particular.
        said: the last of what the worker printed.
    """

    kind: Literal["time", "memory", "exit", "killed"]
    reason: str
    method: str = ""
    said: str = ""


class Attempt(Protocol):
    """A worker with one unit."""

    @property
    def unit(self) -> Unit:
        """What it was given."""

    def news(self) -> list[Event]:
        """What it told since the last call."""

    def death(self) -> Death | None:
        """How it ended before its unit did; None while it lives."""

    def beat(self) -> Beat | None:
        """What it is at; None where that cannot be seen from here."""

    def growth(self) -> int:
        """The bytes of memory that it took since the unit began."""

    def kill(self) -> None:
        """Ends it at once, and everything that it started."""

    def close(self) -> None:
        """Its unit is over: it may have another one."""


class Pool(Protocol):
    """Where units run; `slots` at once."""

    @property
    def slots(self) -> int:
        """How many units may run at once."""

    def start(self, unit: Unit) -> Attempt:
        """Gives the unit to a worker."""

    def close(self) -> None:
        """Ends all workers at once; what they stored is kept."""
