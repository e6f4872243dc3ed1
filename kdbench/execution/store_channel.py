"""The driver's end of a store, where that is all that it shares with the nodes: it alone writes the run's folder."""

from __future__ import annotations

import platform
import re
import secrets
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from kdbench.discovery import Selection
from kdbench.errors import BadInput, StoreError
from kdbench.execution.channels import Task
from kdbench.execution.event_log import Event, parsed
from kdbench.execution.local import is_finished
from kdbench.execution.node import Assignment, supervise_apart, teacher_folder
from kdbench.execution.shared_store import SharedStore
from kdbench.execution.shipping import pack
from kdbench.execution.units import Unit
from kdbench.execution.work import Job, Work
from kdbench.execution.workplace import Workplace
from kdbench.files import SUMS, sha256_of, write_atomic
from kdbench.measuring.record import Record
from kdbench.plan import Trial
from kdbench.store.trial_files import TrialFiles, teacher_files
from kdbench.training.observer import Observer


class StoreChannel:
    """Talks through a store, laid out so that nobody overwrites what others may be reading:

    teachers/<fingerprint>-<digest>/         trained teachers, for all runs
    runs/<run>/trials/<fingerprint>/         checkpoints, and finished trials until the driver has taken them
    runs/<run>/<session>/driver, stop        one command's word to the nodes
    runs/<run>/<session>/<unit>/000000.json  a node's word about a unit

    Raises:
        MissingExtra, BadInput: such a store cannot be used here.
    """

    def __init__(self, url: str, data: str, work: Work, place: Workplace, observer: Observer) -> None:
        self._store, self._data = SharedStore(url), data and SharedStore(data).url
        if self._store.is_of_one_process:
            raise BadInput(f"the store '{url}' cannot be seen from other machines", hint="e.g. s3://bucket/folder")
        self._work, self._place, self._observer = work, place, observer
        self._run = f"runs/{_key(work)}"
        self._session = f"{self._run}/{secrets.token_hex(6)}"
        self._trials = {trial.fingerprint: trial for trial in (*work.plan.trials, *work.plan.teachers)}
        self._teachers: dict[str, str] = {}  # the SHA-256 of those that were offered already
        self._job = ""
        self._environment: dict[str, str] = {}  # the variables that nodes have besides the driver's
        self.stop = _StopSign(self._store, f"{self._session}/stop")

    def runtime_env(self) -> dict[str, Any]:
        """See `Channel`: nodes have a kdbench of their own, and get the plugins of this one."""
        shipment = pack(Selection.from_environment(), self._place.folder / "shipped")
        self._environment = {"KDBENCH_PLUGINS": shipment.plugins}
        return {"working_dir": str(shipment.folder)}

    def open(self, job: Job) -> list[Record]:
        """See `Channel`."""
        for name in {name.partition("/")[0] for name in self._store.listing(self._run)} - {"trials"}:
            self._store.remove(f"{self._run}/{name}")  # of a command that was killed
        left = [name.partition("/")[0] for name in self._store.listing(f"{self._run}/trials") if name.endswith(SUMS)]
        taken = [self._take_left(fingerprint) for fingerprint in left]
        theirs = job.model_copy(update={"environment": {**job.environment, **self._environment}})
        self._job = theirs.model_dump_json()
        self._store.write(f"{self._session}/driver", platform.node().encode())
        return [record for record in taken if record is not None]

    def task(self, name: str, unit: Unit) -> Task:
        """See `Channel`."""
        assignment = Assignment(
            job=self._job,
            store=self._store.url,
            session=self._session,
            trials=f"{self._run}/trials",
            unit=name,
            fingerprints=tuple(unit.fingerprints),
            teachers={teacher.fingerprint: self._offered(teacher) for teacher in unit.teachers},
            data=self._data,
        )
        return supervise_apart, (asdict(assignment),)

    def events(self, name: str, unit: Unit) -> _Arrivals:
        """See `Channel`."""
        return _Arrivals(self, self._store, f"{self._session}/{name}")

    def close(self, over: bool) -> None:
        """See `Channel`."""
        with suppress(StoreError):  # what is left there is in nobody's way, and goes with the next command
            self._store.remove(self._run if over else self._session)

    def take(self, fingerprint: str) -> Record:
        """Moves a finished trial from the store into the run's folder, or a teacher into that of all runs.

        Raises:
            StoreError: its files are not as their SHA-256 says, or it is no trial of this run.
        """
        trial, name = self._trials.get(fingerprint), f"{self._run}/trials/{fingerprint}"
        if trial is None:
            raise StoreError(f"{self._store}/{name:.200} is no trial of this run")
        files = self._files(trial)
        record = files.record()
        if record is None or not is_finished(record):  # or else another run has trained the same teacher meanwhile
            record = files.record() if self._store.fetch_folder(name, files.folder) else None
            if record is None or record.fingerprint != fingerprint:
                raise StoreError(f"{self._store}/{name} does not hold the trial's record")
            files.discard_checkpoint()
        self._store.remove(name)
        return record

    def _take_left(self, fingerprint: str) -> Record | None:
        """What a killed driver had no time to take; a student's new record. What cannot be used is computed again."""
        trial = self._trials.get(fingerprint)
        if trial is None or is_finished(self._files(trial).record()):
            return None
        try:
            record = self.take(fingerprint)
        except StoreError as error:
            self._observer.note(f"{error.message}; it is computed again")
            self._store.remove(f"{self._run}/trials/{fingerprint}")
            return None
        self._observer.trial_stored(trial, record.status, record.reason)
        return None if trial.reference is None else record

    def _offered(self, teacher: Trial) -> str:
        """The SHA-256 by which nodes know a teacher, put into the store now where that was not done before."""
        if teacher.fingerprint not in self._teachers:
            folder = self._files(teacher).folder
            if not (folder / SUMS).is_file():
                raise StoreError(f"the teacher in {folder} has no {SUMS}", hint="delete that folder and run again")
            sha256 = sha256_of(folder / SUMS)
            name = teacher_folder(teacher.fingerprint, sha256)
            if not self._store.holds(f"{name}/{SUMS}"):
                self._store.push_folder(folder, name)
            self._teachers[teacher.fingerprint] = sha256
        return self._teachers[teacher.fingerprint]

    def _files(self, trial: Trial) -> TrialFiles:
        if trial.reference is None:
            return teacher_files(self._work.out, trial.fingerprint)
        return self._work.run.trial(trial.fingerprint)


class _Arrivals:
    """What a node tells of a unit, in order; a trial is taken before anybody hears that it is there."""

    def __init__(self, channel: StoreChannel, store: SharedStore, folder: str) -> None:
        self._channel, self._store, self._folder = channel, store, folder
        self._heard = 0

    def news(self) -> list[Event]:
        """The events since the last call."""
        events = []
        while (content := self._store.read(f"{self._folder}/{self._heard:06}.json")) is not None:
            self._heard += 1
            event = parsed(content)
            if event is not None:
                if event["event"] == "trial_stored":
                    self._channel.take(str(event["trial"]))
                events.append(event)
        return events


class _StopSign:
    def __init__(self, store: SharedStore, name: str) -> None:
        self._store, self._name, self._told = store, name, False

    def touch(self) -> None:
        """Tells the nodes, once."""
        if not self._told:
            self._store.write(self._name, b"")
            self._told = True


def _key(work: Work) -> str:
    """The run's name in the store, the same for each command that works on its folder, and no other run's."""
    path = work.run.path / "store-key"
    if not path.exists():
        name = re.sub(r"[^A-Za-z0-9_-]", "_", work.run.path.name)
        write_atomic(path, f"{name}-{secrets.token_hex(6)}\n")
    return re.sub(r"[^A-Za-z0-9_-]", "", path.read_text(encoding="utf-8", errors="replace"))
