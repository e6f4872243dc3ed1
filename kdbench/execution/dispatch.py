"""Gives units to workers, teachers first; ends what goes over its limits, and goes on without who is to blame."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from kdbench.errors import KdbenchError
from kdbench.execution.event_log import Event, replay
from kdbench.execution.limits import Limits, OutOfTime
from kdbench.execution.local import CohortRunner, TeacherFailed, is_finished
from kdbench.execution.pool import Attempt, Death, Pool
from kdbench.execution.units import Unit, units_to_run
from kdbench.execution.work import Work
from kdbench.execution.workplace import StopSign
from kdbench.measuring.record import Record
from kdbench.plan import Trial
from kdbench.training.observer import Observer

_LOOK = 0.1  # seconds between two looks at the workers
_RETRIES = 3  # times that what was killed from outside is tried again


class Dispatcher:
    """Carries out one plan by means of a pool.

    A worker that dies costs its own trial only. In company the heartbeat names a suspect: it goes on alone, the others
    go on together, all from their last epoch and to the same end; only what dies alone is to blame, and its record says
    so. What was killed from outside is tried again.
    """

    def __init__(
        self, work: Work, pool: Pool, limits: Limits, stop: StopSign, observer: Observer, only: Unit | None = None
    ) -> None:
        """`stop`: tells the workers to stop at the end of an epoch; `only`: of all that the work comes to."""
        self._pool, self._limits, self._stop, self._observer = pool, limits, stop, observer
        self._runner = CohortRunner(work.plan, work.run, work.out, work.device, observer, work.validation_only)
        self._trials = {trial.fingerprint: trial for trial in (*work.plan.trials, *work.plan.teachers)}
        self._whole = only is None
        self._waiting = [only] if only else units_to_run(work.plan, self._is_finished)
        self._running: list[Attempt] = []
        self._started: set[Attempt] = set()
        self._ended: set[str] = set()  # fingerprints of what has a record of this command, done or not
        self._lost: dict[str, TeacherFailed] = {}
        self._killed: Counter[str] = Counter()
        self._false_starts = 0

    def run(self) -> Iterator[list[Record]]:
        """Yields the new records, unit by unit.

        Raises:
            OutOfTime: the run's time is over.
            KdbenchError: workers do not start, or one met what concerns all of them (the disk is full).
        """
        if self._whole:
            yield self._runner.begin()
        look = self._limits.clock()
        while self._waiting or self._running:
            try:
                look()
                yield from self._start()
            except OutOfTime:
                self._stop.touch()
                self._recall()
                if not self._running:
                    raise
            time.sleep(_LOOK)
            for attempt in list(self._running):
                yield from self._follow(attempt)

    def _start(self) -> Iterator[list[Record]]:
        """As many units as there is room for, of those whose teachers are there."""
        pending = {trial.fingerprint for unit in self._units() if unit.is_teacher for trial in unit.trials}
        for unit in list(self._waiting):
            if len(self._running) >= self._pool.slots:
                return
            if not any(teacher.fingerprint in pending for teacher in unit.teachers):
                self._waiting.remove(unit)
                able, records = self._with_teachers(unit)
                if records:
                    yield records
                if able:
                    self._running.append(self._pool.start(Unit(able)))

    def _recall(self) -> None:
        """Takes back what no worker has begun with: on a busy cluster that may take hours."""
        for attempt in [each for each in self._running if each not in self._started]:
            self._running.remove(attempt)
            attempt.kill()
            self._waiting.append(attempt.unit)

    def _units(self) -> list[Unit]:
        return [*self._waiting, *(attempt.unit for attempt in self._running)]

    def _with_teachers(self, unit: Unit) -> tuple[tuple[Trial, ...], list[Record]]:
        """The trials whose teachers were trained, and the records of the others."""
        able, records = [], []
        for trial in unit.trials:
            lost = [failure for teacher in Unit((trial,)).teachers if (failure := self._lost.get(teacher.fingerprint))]
            if not lost:
                able.append(trial)
            elif unit.is_teacher:
                self._lost[trial.fingerprint] = lost[0]
            else:
                records.append(self._fail(trial, lost[0].message))
        return tuple(able), records

    def _follow(self, attempt: Attempt) -> Iterator[list[Record]]:
        """Passes on what a worker tells; closes its unit, or buries it."""
        death = attempt.death() or self._over_limit(attempt)
        ended = [self._hear(attempt, event) for event in attempt.news()]  # after the look: what it told last counts
        if any(ended):
            self._running.remove(attempt)
            self._started.discard(attempt)
            attempt.close()
            yield self._records(attempt.unit)
        elif death is not None:
            self._running.remove(attempt)
            attempt.kill()
            yield self._bury(attempt, death)

    def _hear(self, attempt: Attempt, event: Event) -> bool:
        """Whether that was the end of the unit."""
        match event["event"]:
            case "unit_started":
                self._started.add(attempt)
                self._false_starts = 0
            case "unit_ended":
                return True
            case "stopped":
                self._waiting.append(attempt.unit)
                return True
            case "epoch_ended":
                for fingerprint in event["last"]:
                    del self._killed[fingerprint]  # it gets on: a machine that often ends its jobs is not its fault
                replay(event, self._trials, self._observer)
            case "broken":
                raise KdbenchError(event["message"], hint=event["hint"])
            case "trial_stored":
                self._ended.add(event["trial"])
                replay(event, self._trials, self._observer)
            case _:
                replay(event, self._trials, self._observer)
        return False

    def _over_limit(self, attempt: Attempt) -> Death | None:
        if attempt not in self._started or not self._limits.of_trials:
            return None
        beat, minutes, memory = attempt.beat(), self._limits.trial_minutes, self._limits.trial_memory
        at = beat.method if beat else ""
        if beat and minutes is not None and beat.seconds > 60 * minutes:
            return Death("time", f"it took more than the {minutes:g} minutes that --trial-minutes allows", at)
        if memory is not None and attempt.growth() > 1e9 * memory * len(attempt.unit.trials):
            return Death("memory", f"it took more than the {memory:g} GB that --trial-memory allows", at)
        return None

    def _bury(self, attempt: Attempt, death: Death) -> list[Record]:
        """The records of who is to blame; whoever is not goes on."""
        if attempt not in self._started:
            return self._false_start(attempt, death)
        self._started.discard(attempt)
        left = tuple(trial for trial in attempt.unit.trials if not self._is_over(trial))
        if not left:
            return self._records(attempt.unit)
        suspects = left if len(left) == 1 else tuple(trial for trial in left if trial.method_name == death.method)
        for trial in suspects or left:
            self._killed[trial.fingerprint] += death.kind == "killed"
        guilty = suspects if self._is_proven(death, left, suspects) else ()
        at = f" at work on {', '.join(sorted({trial.method_name for trial in suspects}))}" if suspects else ""
        self._observer.note(f"{attempt.unit}: {death.reason}{at}; {_consequence(guilty, left)}")
        rest = tuple(trial for trial in left if trial not in guilty)
        self._waiting[:0] = map(Unit, self._parts(rest, suspects, death))
        records = [self._fail(trial, death.reason, death.said) for trial in guilty]
        return records if not attempt.unit.is_teacher else []

    def _is_proven(self, death: Death, left: tuple[Trial, ...], suspects: tuple[Trial, ...]) -> bool:
        """Alone, a trial answers for its worker; in company, for the time of its own steps."""
        if len(suspects) != 1:
            return False
        if death.kind == "killed":
            return len(left) == 1 and self._killed[left[0].fingerprint] > _RETRIES
        return len(left) == 1 or death.kind == "time"

    def _parts(self, rest: tuple[Trial, ...], suspects: tuple[Trial, ...], death: Death) -> list[tuple[Trial, ...]]:
        """How the others go on: suspects alone; all alone, where none is suspected and it does not end."""
        if not suspects:
            again = death.kind == "killed" and max(self._killed[trial.fingerprint] for trial in rest) <= _RETRIES
            return [rest] if again else [(trial,) for trial in rest]
        free = tuple(trial for trial in rest if trial not in suspects)
        return [*([free] if free else []), *((trial,) for trial in rest if trial in suspects)]

    def _false_start(self, attempt: Attempt, death: Death) -> list[Record]:
        self._false_starts += 1
        if self._false_starts > _RETRIES:
            raise KdbenchError(f"workers do not start: {death.reason}", hint=death.said)
        self._waiting.insert(0, attempt.unit)
        return []

    def _records(self, unit: Unit) -> list[Record]:
        """Those of the unit's students; a teacher without a network is lost for its students."""
        found = {trial: self._runner.files(trial).record() for trial in unit.trials}
        for trial, record in found.items():
            if unit.is_teacher and record is not None and record.status != "done":
                self._lost[trial.fingerprint] = TeacherFailed.of(trial, record)
        return [record for trial, record in found.items() if record is not None and trial.reference is not None]

    def _fail(self, trial: Trial, reason: str, said: str = "") -> Record:
        record = self._runner.fail(trial, reason, said or None)
        self._ended.add(trial.fingerprint)
        if trial.reference is None:
            self._lost[trial.fingerprint] = TeacherFailed.of(trial, record)
        return record

    def _is_finished(self, trial: Trial) -> bool:
        return is_finished(self._runner.files(trial).record())

    def _is_over(self, trial: Trial) -> bool:
        return trial.fingerprint in self._ended or self._is_finished(trial)


def _consequence(guilty: tuple[Trial, ...], left: tuple[Trial, ...]) -> str:
    if not guilty:
        return "what it was given is tried again"
    return "the others go on" if len(left) > 1 else "the run goes on"
