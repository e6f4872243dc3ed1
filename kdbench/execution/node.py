"""One unit on a node that shares nothing with the driver but a store: all that it needs is fetched, all that it makes
is pushed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdbench.data import DataFolders
from kdbench.errors import StoreError
from kdbench.execution.event_log import EventLog
from kdbench.execution.mirror import mirror
from kdbench.execution.shared_store import SharedStore
from kdbench.execution.shipping import unpacked_folders
from kdbench.execution.supervisor import assigned, carry_out, telling
from kdbench.execution.units import Unit
from kdbench.execution.work import Job
from kdbench.execution.workplace import Workplace
from kdbench.plan import Cohort, Trial
from kdbench.store.run_folder import RunFolder
from kdbench.store.trial_files import Damaged, TrialFiles, checked, teacher_files
from kdbench.training.checkpoints import Snapshot

_DRIVERS_OWN = frozenset({"KDBENCH_CACHE", "XDG_CACHE_HOME"})  # variables that mean nothing on another machine
_LOOK = 2.0  # seconds between two looks for the driver's word to stop


@dataclass(frozen=True)
class Assignment:
    """One unit for a node, by names in a store. What is asked for never comes from there, only what is needed for it.

    Attributes:
        job: as JSON.
        store: its URL.
        session: the folder in it through which this command's driver and nodes talk.
        trials: the folder in it where the run's trials are under way.
        unit: the unit's name in the session.
        fingerprints: of the unit's trials.
        teachers: of each teacher that the unit needs, by fingerprint, the SHA-256 of its SHA256SUMS.
        data: the URL of the data; empty: each node has its own.
    """

    job: str
    store: str
    session: str
    trials: str
    unit: str
    fingerprints: tuple[str, ...]
    teachers: Mapping[str, str]
    data: str

    @property
    def sign(self) -> str:
        """The file by which a node knows that it looks at the driver's store."""
        return f"{self.session}/driver"


def teacher_folder(fingerprint: str, sha256: str) -> str:
    """Where a teacher lies in a store, or in a node's cache: as it is now, and never another."""
    return f"teachers/{checked(fingerprint)}-{checked(sha256)[:16]}"


def supervise_apart(facts: Mapping[str, Any]) -> None:
    """Carries out one unit in this node's cache, and tells the driver through the store. `facts`: an `Assignment`'s.

    At the end of each epoch the checkpoints are pushed, with which the unit goes on elsewhere where this node is lost.

    Raises:
        KdbenchError: the store cannot be used from here, so that the driver cannot be told.
    """
    assignment = Assignment(**facts)
    store = SharedStore(assignment.store)
    home = DataFolders.from_environment().cache.absolute() / "ray"
    name = re.sub(r"[^\w.-]", "_", f"{assignment.session}-{assignment.unit}")
    courier = _Courier(store, assignment, home / "units" / name)
    with telling(courier), _quarters(home / "units", name) as own:
        if not store.holds(assignment.sign):
            hint = "all machines must see the same store; a file:// URL is a folder that all of them mount"
            raise StoreError(f"{platform.node()} finds nothing of this run in the store {store}", hint=hint)
        job = _here(Job.model_validate_json(assignment.job), assignment, home, own.folder, courier)
        work, unit = assigned(job, assignment.fingerprints)
        _provide_teachers(store, assignment, unit, home, own.folder, courier)
        courier.fetch_checkpoints(unit)
        carry_out(job, work, unit, own, courier, _told(store, f"{assignment.session}/stop"))


class _Courier(EventLog):
    """Tells the driver through the store, an object per event, always after what the event is about."""

    def __init__(self, store: SharedStore, assignment: Assignment, own: Path) -> None:
        self._store, self._assignment, self._own = store, assignment, own
        self._told = 0
        self._pushed: dict[str, tuple[int, int]] = {}

    def epoch_ended(self, cohort: Cohort, epochs: int, curves: Mapping[Trial, Mapping[str, list[float]]]) -> None:
        for trial in curves:
            self._push_checkpoint(trial)
        super().epoch_ended(cohort, epochs, curves)

    def trial_stored(self, trial: Trial, status: str, reason: str | None) -> None:
        self._store.push_folder(self._files(trial).folder, self._remote(trial))
        super().trial_stored(trial, status, reason)

    def fetch_checkpoints(self, unit: Unit) -> None:
        """What other nodes left of the unit's trials."""
        for trial in unit.trials:
            for file in self._checkpoints(trial):
                if self._store.holds(f"{self._remote(trial)}/{file.name}"):
                    self._store.fetch(f"{self._remote(trial)}/{file.name}", file)

    def _append(self, line: str) -> None:
        self._store.write(f"{self._assignment.session}/{self._assignment.unit}/{self._told:06}.json", line.encode())
        self._told += 1

    def _push_checkpoint(self, trial: Trial) -> None:
        """The state, and first the weights of earlier epochs without which it is none: all as they are now, while the
        worker goes on."""
        *earlier, last = self._checkpoints(trial)
        with suppress(FileNotFoundError), self._held(last) as state:  # or the worker is through with the trial
            for file in earlier:
                if file.exists():
                    with self._held(file) as weights:
                        self._push(weights, f"{self._remote(trial)}/{file.name}")
            self._push(state, f"{self._remote(trial)}/{last.name}")

    @contextmanager
    def _held(self, file: Path) -> Iterator[Path]:
        """The file under another name, where nobody replaces or removes it; FileNotFoundError where there is none."""
        link = self._own / f"{file.parent.name}-{file.name}"
        link.unlink(missing_ok=True)
        os.link(file, link)
        try:
            yield link
        finally:
            link.unlink()

    def _push(self, file: Path, name: str) -> None:
        """Unless that was done before."""
        facts = file.stat()
        if self._pushed.get(name) != (facts.st_ino, facts.st_mtime_ns):
            self._store.push(file, name)
            self._pushed[name] = (facts.st_ino, facts.st_mtime_ns)

    def _checkpoints(self, trial: Trial) -> list[Path]:
        """Where the weights of earlier epochs lie, and last the state."""
        last = self._files(trial).checkpoint
        return [*(Snapshot.of(last, epoch).path for epoch in trial.kept_epochs), last]

    def _files(self, trial: Trial) -> TrialFiles:
        if trial.reference is None:
            return teacher_files(self._own, trial.fingerprint)
        return RunFolder(self._own / "run").trial(trial.fingerprint)

    def _remote(self, trial: Trial) -> str:
        return f"{self._assignment.trials}/{trial.fingerprint}"


@contextmanager
def _quarters(units: Path, name: str) -> Iterator[Workplace]:
    """A folder of one unit on this node, gone afterwards; and so are those whose processes were killed.

    Raises:
        StoreError: this node's cache cannot be written.
    """
    try:
        units.mkdir(parents=True, exist_ok=True)
        for left in units.glob("*.lock"):
            _clear(left)
        lock = FileLock(units / f"{name}.lock")
        lock.acquire()
    except OSError as error:
        hint = "set KDBENCH_CACHE on that machine, before `ray start`, to a folder that can be written"
        raise StoreError(f"{platform.node()} cannot write in {units}: {error.strerror or error}", hint=hint) from error
    try:
        with Workplace(units / name) as own:
            yield own
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _clear(left: Path) -> None:
    """Removes a unit's folder whose lock nobody holds: a lock is the system's, and ends with its process."""
    lock = FileLock(left)
    with suppress(Timeout), lock.acquire(timeout=0):
        shutil.rmtree(left.with_suffix(""), ignore_errors=True)
        left.unlink(missing_ok=True)


def _here(job: Job, assignment: Assignment, home: Path, own: Path, log: EventLog) -> Job:
    """The job with this node's folders instead of the driver's; relative paths begin at the data."""
    data = os.environ.get("KDBENCH_DATA") or job.environment.get("KDBENCH_DATA", "")
    folders = [folder for folder in data.split(os.pathsep) if folder]
    directory = home
    if assignment.data:
        directory = mirror(assignment.data, home / "data", assignment.session, log.note)
        folders = [str(directory), *(folder for folder in folders if folder != str(directory))]
    environment = {name: value for name, value in job.environment.items() if name not in _DRIVERS_OWN}
    environment["KDBENCH_DATA"] = os.pathsep.join(folders)
    environment["KDBENCH_PLUGIN_DIR"] = os.pathsep.join(map(str, unpacked_folders()))
    return job.model_copy(
        update={"run": own / "run", "out": own, "directory": directory, "environment": environment},
    )


def _provide_teachers(
    store: SharedStore, assignment: Assignment, unit: Unit, home: Path, own: Path, log: EventLog
) -> None:
    """Has the unit's teachers lie where it looks for them. Each is fetched once per node: others wait for who does."""
    for teacher in unit.teachers:
        sha256 = assignment.teachers[teacher.fingerprint]
        remote = teacher_folder(teacher.fingerprint, sha256)
        folder = home / remote
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not _is_whole(TrialFiles(folder)):
                if not store.fetch_folder(remote, folder, sha256):
                    raise StoreError(f"there is no {remote} in the store {store}", hint="was it removed meanwhile?")
                log.note(f"{platform.node()} fetched the teacher {teacher.student}, seed {teacher.seed}, to {folder}")
        wanted = teacher_files(own, teacher.fingerprint).folder
        wanted.parent.mkdir(parents=True, exist_ok=True)
        wanted.symlink_to(folder, target_is_directory=True)


def _is_whole(files: TrialFiles) -> bool:
    try:
        return files.record() is not None and files.damage() is None
    except Damaged:
        return False


def _told(store: SharedStore, sign: str) -> Callable[[], bool]:
    """Whether the driver asks to stop; looked at every now and then only."""
    next_look = 0.0

    def look() -> bool:
        nonlocal next_look
        if time.monotonic() < next_look:
            return False
        next_look = time.monotonic() + _LOOK
        return store.holds(sign)

    return look
