"""Where a run's time goes: spans of named phases, summed by phase, and as a Chrome trace.

Without a profile in force a span costs a function call, so that they can stay in the training loop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from kdbench.files import write_atomic

TRACED = 500_000  # spans kept for a trace, about 60 MB of it; later ones are only summed

_NOTHING: AbstractContextManager[None] = nullcontext()
_active: Profile | None = None


@dataclass
class Spent:
    """What one phase took: its own seconds, without those of phases inside it, and how often it was entered."""

    seconds: float = 0.0
    entered: int = 0


class Profile:
    """Sums spans by (phase, of whom), and keeps them in order where a trace is wanted.

    `synchronize` waits for an accelerator, so that what was queued in a span is counted there.
    """

    def __init__(self, traced: bool = False, synchronize: Callable[[], None] | None = None) -> None:
        self.spent: dict[tuple[str, str], Spent] = {}
        self.untraced = 0
        self._traced, self._synchronize = traced, synchronize
        self._events: list[tuple[str, str, float, float]] = []
        self._inside: list[float] = []  # per open span, the seconds of the spans inside it
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the profile was made."""
        return time.perf_counter() - self._begun

    @contextmanager
    def span(self, phase: str, of: str) -> Iterator[None]:
        """Counts a block as `phase`."""
        started = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            if self._synchronize is not None:
                self._synchronize()
            seconds = time.perf_counter() - started
            spent = self.spent.setdefault((phase, of), Spent())
            spent.seconds += seconds - self._inside.pop()
            spent.entered += 1
            if self._inside:
                self._inside[-1] += seconds
            self._trace(phase, of, started, seconds)

    def _trace(self, phase: str, of: str, started: float, seconds: float) -> None:
        if self._traced and len(self._events) < TRACED:
            self._events.append((phase, of, started, seconds))
        elif self._traced:
            self.untraced += 1

    def write_trace(self, path: Path) -> None:
        """Writes the spans in the Trace Event Format, which chrome://tracing and ui.perfetto.dev open; microseconds."""
        events = [
            {
                "name": f"{phase} {of}".strip(),
                "cat": phase,
                "ph": "X",
                "pid": 0,
                "tid": 0,
                "ts": round(1e6 * (started - self._begun), 1),
                "dur": round(1e6 * seconds, 1),
            }
            for phase, of, started, seconds in self._events
        ]
        write_atomic(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode())


@contextmanager
def profiled(profile: Profile) -> Iterator[Profile]:
    """Has every span of a block counted in `profile`."""
    global _active
    before, _active = _active, profile
    try:
        yield profile
    finally:
        _active = before


def span(phase: str, of: str = "") -> AbstractContextManager[None]:
    """Counts a block as `phase`, of a network or method, if a profile is in force."""
    return _NOTHING if _active is None else _active.span(phase, of)
