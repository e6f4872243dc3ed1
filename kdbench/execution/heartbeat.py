"""Heartbeat: which method a worker is at work for, and since when, in a file that is read from outside."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdbench.profiling import Profile

_WIDTH = 512  # bytes: a beat is written over the last one in one piece
_NOBODYS = frozenset({"teacher"})  # spans that name a network which serves the whole cohort
_WAITING = "waiting"  # spans in which another command is at work


@dataclass(frozen=True)
class Beat:
    """The last beat: at work for `method` ("": for nobody in particular) `since`, after `before` seconds in the same
    unit; times as `time.monotonic` gives them, which all processes of a machine share."""

    method: str
    since: float
    before: float

    @property
    def seconds(self) -> float:
        """What the method took so far; for nobody in particular, what that takes this time."""
        return self.before + time.monotonic() - self.since


class Heartbeat(Profile):
    """Beats whenever a span of a method begins or ends: no thread, which an endless loop in C would starve."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        self._process = os.getpid()
        self._took: defaultdict[str, float] = defaultdict(float)
        self.rest()

    def rest(self) -> None:
        """Begins a new unit."""
        self._took.clear()
        self._beat("", time.monotonic())

    @contextmanager
    def span(self, phase: str, of: str) -> Iterator[None]:
        """Beats for a block on behalf of the method `of`."""
        if os.getpid() != self._process:
            os._exit(1)  # a copy of this worker that a method forked and let return: two would train the same
        if not of or phase in _NOBODYS:
            yield
            if phase == _WAITING:
                self._beat("", time.monotonic())  # alive, and at nothing that takes too long
            return
        started = time.monotonic()
        self._beat(of, started)
        try:
            yield
        finally:
            ended = time.monotonic()
            self._took[of] += ended - started
            self._beat("", ended)

    def _beat(self, method: str, since: float) -> None:
        beat = json.dumps([method, since, self._took[method] if method else 0.0])
        os.pwrite(self._file, beat.encode()[:_WIDTH].ljust(_WIDTH), 0)


def last_beat(path: Path) -> Beat | None:
    """What the worker that writes there is at; None where that cannot be read."""
    try:
        method, since, before = json.loads(path.read_bytes())
        return Beat(str(method), float(since), float(before))
    except (OSError, ValueError, TypeError):
        return None
