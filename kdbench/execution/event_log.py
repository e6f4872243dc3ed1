"""What a worker tells its driver: JSON lines, by default in a file that both see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdbench.errors import StoreError
from kdbench.plan import Cohort, Trial
from kdbench.training.observer import Observer

Event = Mapping[str, Any]


class EventLog(Observer):
    """Writes down what it is told, a line each.

    Raises:
        StoreError: the disk is full, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, **facts: Any) -> None:
        """Tells one event."""
        self._append(json.dumps({"event": event, **facts}) + "\n")

    def _append(self, line: str) -> None:
        """The file is opened anew: nobody is surprised by a descriptor that a method closed."""
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror or error}") from error

    def cohort_started(self, cohort: Cohort, first_epoch: int) -> None:
        self.write("cohort_started", cohort=_names(cohort), epoch=first_epoch)

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Mapping[Trial, Mapping[str, list[float]]]) -> None:
        last = {
            trial.fingerprint: {name: curve[-1] for name, curve in seen.items() if curve}
            for trial, seen in curves.items()
        }
        self.write("epoch_ended", cohort=_names(cohort), epoch=epochs, last=last)

    def cohort_ended(self, cohort: Cohort) -> None:
        self.write("cohort_ended", cohort=_names(cohort))

    def trial_stored(self, trial: Trial, status: str, reason: str | None) -> None:
        self.write("trial_stored", trial=trial.fingerprint, status=status, reason=reason)

    def note(self, message: str) -> None:
        self.write("note", message=message)


class EventReader:
    """Reads what was appended since the last look; a line that is not whole yet waits for the next."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def news(self) -> list[Event]:
        """The events since the last call; what is no event (a method may write anywhere) is passed over."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                read = file.read()
        except FileNotFoundError:
            return []
        whole = read[: read.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [event for line in whole.splitlines() if (event := parsed(line))]


def replay(event: Event, trials: Mapping[str, Trial], observer: Observer) -> None:
    """Tells `observer` what the worker's was told; of curves only the last value."""
    match event["event"]:
        case "cohort_started":
            observer.cohort_started(_cohort(event, trials), event["epoch"])
        case "epoch_ended":
            curves = {
                trials[fingerprint]: {name: [value] for name, value in seen.items()}
                for fingerprint, seen in event["last"].items()
            }
            observer.epoch_ended(_cohort(event, trials), event["epoch"], curves)
        case "cohort_ended":
            observer.cohort_ended(_cohort(event, trials))
        case "trial_stored":
            observer.trial_stored(trials[event["trial"]], event["status"], event["reason"])
        case "note":
            observer.note(event["message"])


def parsed(line: bytes) -> Event | None:
    """The event that a line holds; None where it is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _names(cohort: Cohort) -> list[str]:
    return [trial.fingerprint for trial in cohort.trials]


def _cohort(event: Event, trials: Mapping[str, Trial]) -> Cohort:
    return Cohort(tuple(trials[fingerprint] for fingerprint in event["cohort"]))
