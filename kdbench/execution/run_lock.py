"""One command at a time may work on a run's folder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdbench.errors import StoreError
from kdbench.files import write_atomic
from kdbench.store.run_folder import RunFolder, now


@contextmanager
def locked(run: RunFolder) -> Iterator[str | None]:
    """Holds the run for a block; gives a note where the last command was killed: its lock ended with it.

    The lock is the system's (flock), and so never outlives its process; the file beside it only says whose it is.

    Raises:
        StoreError: another command holds it; with its process, host and time.
    """
    holder = run.path / "lock.json"
    lock = FileLock(run.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = _who(_read(holder))
        hint = "wait until it has ended, or choose another --name"
        raise StoreError(f"another kdbench works on {run.path}: {who}", hint=hint) from None
    except OSError as error:
        raise StoreError(f"cannot lock {run.path}: {error.strerror or error}") from error
    try:
        left = _read(holder)
        write_atomic(holder, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now()}))
        yield f"the last command here was killed ({_who(left)}); going on from what it stored" if left else None
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


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
