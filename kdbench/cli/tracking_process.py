"""MLflow kept up to date by a process beside the run: importing it and making its tables takes seconds, and training
waits for none of them.

The run tells the process on its standard input that there is something new, or that this is the end; what the process
has to say it writes as events.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from kdbench.cli.tracking import Tracker
from kdbench.execution.event_log import EventLog, EventReader
from kdbench.interpreter import command, import_path
from kdbench.profiling import span
from kdbench.store.run_folder import RunFolder
from kdbench.training.observer import Observer

_AFTER = 20.0  # seconds of a run; one that is over sooner writes its few records at its end, by itself
_NEWS, _LAST, _EVENTS = "news", "last", "events"


class TrackingProcess:
    """A `Tracker` elsewhere, from some seconds after the block began to its end; without one, and where it is gone,
    the last of all is written here."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._folder = TemporaryDirectory(prefix="kdbench-tracking-")
        self.folder = Path(self._folder.name)
        self._events = EventReader(self.folder / _EVENTS)
        self._timer = threading.Timer(_AFTER, self._start)
        self._timer.daemon = True
        self._starting, self._over = threading.Lock(), False
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> TrackingProcess:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._start_no_more()
        if self._process is not None and self._process.stdin is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
        self._folder.cleanup()

    def news(self, observer: Observer) -> None:
        """Says that there are new records; tells `observer` what went wrong since the last call."""
        with self._starting:  # what is told first is for whom
            self._tell(_NEWS)
        self._listen(observer)

    @contextmanager
    def finishing(self, observer: Observer) -> Iterator[None]:
        """Has everything written, with the report, while the block runs; when it is left, everything is."""
        self._start_no_more()
        told = self._tell(_LAST)
        try:
            yield
        finally:
            with span("tracking"):
                self._finish(observer, told)

    def _finish(self, observer: Observer, told: bool) -> None:
        done = told and self._process is not None and self._process.wait() == 0
        self._listen(observer)
        if not done:
            self._tracker.sync(observer, last=True)

    def _start(self) -> None:
        with self._starting, suppress(OSError):  # where no process can be had, it is done here
            if self._over:
                return
            self._process = subprocess.Popen(
                command("kdbench.cli.tracking_process"),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": import_path()},
                start_new_session=True,  # Ctrl-C is the run's to answer
            )
            # Not on the command line, where everybody on the machine could read the URI's password.
            of_whom = [str(self._tracker.run.path.absolute()), self._tracker.uri, str(self.folder / _EVENTS)]
            self._tell(json.dumps(of_whom))

    def _start_no_more(self) -> None:
        self._timer.cancel()
        with self._starting:
            self._over = True

    def _tell(self, line: str) -> bool:
        """Whether there is somebody who takes it."""
        if self._process is None or self._process.stdin is None:
            return False
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            return False
        return True

    def _listen(self, observer: Observer) -> None:
        for event in self._events.news():
            observer.note(event["message"])


def keep_up(lines: Iterable[str]) -> None:
    """What the process does: the first line says for whom, each further one that there is something to do. Input that
    ends before the last of them means that the run was broken off."""
    told = iter(lines)
    path, uri, log = json.loads(next(told))
    run, observer = RunFolder(Path(path)), EventLog(Path(log))
    tracker = Tracker(run, uri)
    tracker.prepare(observer)
    import_module("scipy.stats")  # which a leaderboard of several seeds needs: now, while nobody waits
    if run.records():
        tracker.sync(observer)
    for line in told:
        last = line.strip() == _LAST
        tracker.sync(observer, last=last)
        if last:
            return
    raise SystemExit(1)


if __name__ == "__main__":
    keep_up(sys.stdin)
    os._exit(0)  # everything is written; to take down all that MLflow has loaded would take another second
