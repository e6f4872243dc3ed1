"""What a worker and everything that it started hold, and their end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# A variable that what a worker starts inherits: it tells whose a process is that left its group and lost its parent.
MARK = "WORKER_OF_KDBENCH"

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36  # man 2 prctl
_PATIENCE = 5.0  # seconds for the kernel to end what was killed


@dataclass(frozen=True)
class Usage:
    """The processes of a group, and the bytes of memory they hold; what two of them share is counted twice."""

    processes: int
    resident_bytes: int


@dataclass(frozen=True)
class _Process:
    number: int
    parent: int
    group: int
    resident_bytes: int


@dataclass(frozen=True)
class ProcessGroup:
    """A process that leads a group, and everything that it started, even in a group or session of its own.

    Attributes:
        leader: its number, which is the group's too.
        mark: the value of the environment variable `MARK` that it was started with; "": none.
    """

    leader: int
    mark: str

    @classmethod
    def own(cls) -> ProcessGroup:
        """That of this process."""
        return cls(os.getpgrp(), os.environ.get(MARK, ""))

    def usage(self) -> Usage:
        """At this moment."""
        members = self._members()
        return Usage(len(members), sum(each.resident_bytes for each in members))

    def kill(self) -> None:
        """Ends all of them, the leader (if it still lives) last: what loses its parent is the leader's until then."""
        spared = {self.leader, os.getpid()}
        if self.leader != os.getpid() and self.leader in {each.number for each in self._members()}:
            _send(self.leader, signal.SIGSTOP)  # so that it starts no more
        end = time.monotonic() + _PATIENCE
        while (left := {each.number for each in self._members()} - spared) and time.monotonic() < end:
            for number in left:
                _send(number, signal.SIGKILL)
            time.sleep(0.01)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.leader, signal.SIGKILL)

    def _members(self) -> list[_Process]:
        found = {each.number: each for each in (_linux() if _PROC.is_dir() else _other())}
        members = {each.number for each in found.values() if each.group == self.leader or self._is_marked(each.number)}
        fresh = members
        while fresh:
            fresh = {each.number for each in found.values() if each.parent in fresh} - members
            members = members | fresh
        return [found[number] for number in members]

    def _is_marked(self, number: int) -> bool:
        if not self.mark:
            return False
        try:
            variables = Path(_PROC, str(number), "environ").read_bytes().split(b"\0")
        except OSError:
            return False  # it ended meanwhile, or is another user's
        return f"{MARK}={self.mark}".encode() in variables


def adopt_orphans() -> None:
    """Makes this process the parent of all below it that lose theirs, where the system can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _send(number: int, what: signal.Signals) -> None:
    """One that is gone already is none to worry about."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(number, what)


def _linux() -> Iterator[_Process]:
    """man 5 proc."""
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in os.scandir(_PROC):
        if entry.name.isdecimal():
            try:
                fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if fields[0] != "Z":
                yield _Process(int(entry.name), int(fields[1]), int(fields[2]), int(fields[21]) * page)


def _other() -> Iterator[_Process]:
    columns = ["-o", "pid=", "-o", "ppid=", "-o", "pgid=", "-o", "rss="]  # one by one, as macOS wants them
    listed = subprocess.run(["ps", "-A", *columns], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        number, parent, group, kilobytes = map(int, line.split())
        yield _Process(number, parent, group, kilobytes * 1024)
