"""One command at a time works on a run's folder, and one trains a teacher that several have in common."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdbench.errors import StoreError
from kdbench.files import write_atomic
from kdbench.profiling import span
from kdbench.store.run_folder import RunFolder, now
from kdbench.training.observer import Observer

_LOOK = 0.5  # seconds between two looks at a lock that another process holds


@contextmanager
def locked(run: RunFolder) -> Iterator[str | None]:
    """Holds the run for a block; gives a note where the last command was killed: its lock ended with it.

    Raises:
        StoreError: another command holds it; with its process, host and time.
    """
    lock = _FolderLock(run.path)
    if not lock.take():
        hint = "wait until it has ended, or choose another --name"
        raise StoreError(f"another kdbench works on {run.path}: {lock.holder()}", hint=hint)
    with lock.held() as left:
        yield f"the last command here was killed ({left}); going on from what it stored" if left else None


@contextmanager
def in_turn(folder: Path, what: str, observer: Observer) -> Iterator[None]:
    """Holds the folder of `what`, which several runs share, for a block; waits where another process does, and says so.

    Raises:
        StoreError: the folder cannot be locked.
        OutOfTime: the run's time is over before the other process is done.
    """
    lock = _FolderLock(folder)
    if not lock.take():
        observer.note(f"waiting for {what}: another kdbench trains it ({lock.holder()})")
        while not lock.take():
            observer.waiting()
            with span("waiting"):
                time.sleep(_LOOK)
    with lock.held():
        yield


class _FolderLock:
    """The lock is the system's (flock), and so never outlives its process; the file beside it only says whose it is."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._note = folder, folder / "lock.json"
        self._lock = FileLock(folder / ".lock")

    def take(self) -> bool:
        """Whether it is this process's now; StoreError where it could be nobody's."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            raise StoreError(f"cannot lock {self._folder}: {getattr(error, 'strerror', None) or error}") from error
        return True

    def holder(self) -> str:
        """Whose it is, for people."""
        return _who(_read(self._note))

    @contextmanager
    def held(self) -> Iterator[str | None]:
        """Gives it back after the block, once taken; gives its last holder, if that was killed."""
        try:
            left = _read(self._note)
            write_atomic(self._note, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now()}))
            yield _who(left) if left else None
        finally:
            self._note.unlink(missing_ok=True)
            self._lock.release()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _who(holder: dict[str, Any] | None) -> str:
    """For people."""
    if holder is None:
        return "it does not say who it is"
    return f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
