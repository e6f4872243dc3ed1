"""What a worker and everything that it forked hold, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """The processes of a group, and the bytes of memory they hold; what two of them share is counted twice."""

    processes: int
    resident_bytes: int


def usage(group: int) -> Usage:
    """Of a process group at this moment."""
    sizes = [size for number, size in (_linux() if _PROC.is_dir() else _other()) if number == group]
    return Usage(len(sizes), sum(sizes))


def kill(group: int) -> None:
    """Ends all processes of the group at once; one that is gone already is none to worry about."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _linux() -> Iterator[tuple[int, int]]:
    """Group and resident bytes of every process; man 5 proc."""
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in os.scandir(_PROC):
        if entry.name.isdecimal():
            try:
                fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if fields[0] != "Z":
                yield int(fields[2]), int(fields[21]) * page


def _other() -> Iterator[tuple[int, int]]:
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,rss="], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        group, kilobytes = line.split()
        yield int(group), int(kilobytes) * 1024
