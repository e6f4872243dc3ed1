"""What a run and its trials may take, and the clean stop when a run's time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kdbench.errors import BadInput, KdbenchError
from kdbench.plan import Cohort, Trial
from kdbench.training.observer import Observer

if TYPE_CHECKING:
    import torch

RESUME = "everything finished is kept; the same command goes on from here"


class OutOfTime(KdbenchError):
    """The run's time is over; it stopped at the end of an epoch. The exit status is sysexits' EX_TEMPFAIL."""

    exit_code = 75


@dataclass(frozen=True)
class Limits:
    """Upper bounds; None: there is none.

    Attributes:
        trial_minutes: wall-clock minutes that a trial's own steps, validation and measuring take, all together, in one
            attempt at it; the time that its company takes is not counted.
        trial_memory: resident memory per trial in GB (10^9 bytes), an accelerator's not counted, beyond what libraries
            and data take; what several trials in company may hold together is the sum of theirs.
        max_hours: wall-clock hours of the run; it stops at the end of an epoch, to be resumed.
        cohort_memory: GB that the tensors of students in lockstep, and of their teachers, may take; what would take
            more is trained in several parts. None: what a CUDA device has free, and anything elsewhere.
        streams: CUDA streams on which students of a cohort are advanced at once.

    Raises:
        BadInput: one of them is not above 0.
    """

    trial_minutes: float | None = None
    trial_memory: float | None = None
    max_hours: float | None = None
    cohort_memory: float | None = None
    streams: int = 1

    def __post_init__(self) -> None:
        for name in ("trial_minutes", "trial_memory", "max_hours", "cohort_memory", "streams"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInput(f"--{name.replace('_', '-')} {value:g}: must be above 0")

    @property
    def of_trials(self) -> bool:
        """Whether any holds for single trials, so that they must run where they can be ended from outside."""
        return self.trial_minutes is not None or self.trial_memory is not None

    def check(self, device: torch.device) -> None:
        """Sees to it that a device knows what they are about.

        Raises:
            BadInput: it has no streams.
        """
        if self.streams > 1 and device.type != "cuda":
            raise BadInput(f"--streams {self.streams}: {device} has none", hint="leave it out, or choose --device cuda")

    def after(self, seconds: float) -> Limits:
        """What is left for the rest of a run that has taken so long already.

        Raises:
            OutOfTime: nothing.
        """
        if self.max_hours is None:
            return self
        left = self.max_hours - seconds / 3600
        if left <= 0:
            raise self._over()
        return replace(self, max_hours=left)

    def _over(self) -> OutOfTime:
        return OutOfTime(f"stopped after {self.max_hours:g} h, as --max-hours says", hint=RESUME)

    def clock(self) -> Callable[[], None]:
        """Counts from now; what it returns raises OutOfTime, once called after the run's time."""
        end = None if self.max_hours is None else time.monotonic() + 3600 * self.max_hours

        def look() -> None:
            if end is not None and time.monotonic() > end:
                raise self._over()

        return look


@dataclass(frozen=True)
class DeviceUse:
    """What of a device a process may use: `cohort_memory` and `streams` as in `Limits`; `sharers`: how many processes
    of the run, this one too, compute on it."""

    cohort_memory: float | None = None
    streams: int = 1
    sharers: int = 1


class ClockedObserver(Observer):
    """Passes everything on, and looks at the clock where nothing is lost: before a cohort, between two epochs, and
    while it waits for others."""

    def __init__(self, observer: Observer, look: Callable[[], None]) -> None:
        self._observer, self._look = observer, look

    def cohort_started(self, cohort: Cohort, first_epoch: int) -> None:
        self._observer.cohort_started(cohort, first_epoch)
        self._look()

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Mapping[Trial, Mapping[str, list[float]]]) -> None:
        self._observer.epoch_ended(cohort, epochs, curves)
        self._look()

    def cohort_ended(self, cohort: Cohort) -> None:
        self._observer.cohort_ended(cohort)

    def trial_stored(self, trial: Trial, status: str, reason: str | None) -> None:
        self._observer.trial_stored(trial, status, reason)

    def waiting(self) -> None:
        self._observer.waiting()
        self._look()

    def note(self, message: str) -> None:
        self._observer.note(message)
