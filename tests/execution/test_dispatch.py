"""The dispatcher, with workers that live and die as a test says: who is to blame, and how the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kdbench.errors import KdbenchError
from kdbench.execution.dispatch import Dispatcher
from kdbench.execution.event_log import Event, EventLog, EventReader
from kdbench.execution.heartbeat import Beat
from kdbench.execution.limits import Limits, OutOfTime
from kdbench.execution.local import CohortRunner, TeacherFailed
from kdbench.execution.pool import Death
from kdbench.execution.units import Unit
from kdbench.execution.work import Work
from kdbench.plan import Cohort

from ..conftest import Notes

MakeWork = Callable[..., Work]
Script = Callable[[list[str]], Death | None]


class Actor:
    """An Attempt that ends as soon as it is looked at: its unit trained in this process, or its death as scripted."""

    def __init__(self, unit: Unit, runner: CohortRunner, log: Path, death: Death | None) -> None:
        self.unit, self._runner, self._death, self._log = unit, runner, death, EventLog(log)
        self._events = EventReader(log)
        self._log.write("unit_started", held=0)

    def news(self) -> list[Event]:
        if self._death is None:
            if self.unit.is_teacher:
                with suppress(TeacherFailed):
                    self._runner.teacher(self.unit.trials[0])
            else:
                self._runner.run_cohort(Cohort(self.unit.trials))
            self._log.write("unit_ended")
        return self._events.news()

    def death(self) -> Death | None:
        return self._death

    def beat(self) -> Beat | None:
        return None

    def growth(self) -> int:
        return 0

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass


class Stage:
    """A pool of actors; keeps what was asked of it."""

    slots = 2

    def __init__(self, work: Work, script: Script) -> None:
        self._runner = CohortRunner(work.plan, work.run, work.out, work.device, Notes(), work.validation_only)
        self._script, self._folder = script, work.out
        self.units: list[list[str]] = []

    def start(self, unit: Unit) -> Actor:
        names = [trial.method_name for trial in unit.trials]
        self.units.append(names)
        return Actor(unit, self._runner, self._folder / f"{len(self.units)}.events", self._script(names))

    def close(self) -> None:
        pass


def played(work: Work, script: Script, notes: Notes | None = None) -> tuple[list[list[str]], dict[str, str | None]]:
    """The units in the order in which they were started, and per method why it failed."""
    stage = Stage(work, script)
    for _ in Dispatcher(work, stage, Limits(), work.out / "stop", notes or Notes()).run():
        pass
    records = [work.run.trial(trial.fingerprint).record() for trial in work.plan.trials]
    assert all(records), "nothing is forgotten"
    return stage.units, {record.method: record.reason for record in records if record}


def deaths(*scripted: tuple[str, Death]) -> Script:
    """Each death once, the next time that a unit holds the method."""
    left = list(scripted)

    def script(names: list[str]) -> Death | None:
        for each in left:
            if each[0] in names:
                left.remove(each)
                return each[1]
        return None

    return script


def always(method: str, death: Death) -> Script:
    return lambda names: death if method in names else None


@pytest.fixture
def tiny(work: MakeWork) -> Work:
    return work(methods="kd, rkd, fitnets", epochs="1")


WHOLE = ["scratch", "kd", "rkd", "fitnets"]
REST = ["scratch", "kd", "fitnets"]


def test_teachers_come_first_and_cohorts_whole(tiny: Work) -> None:
    units, reasons = played(tiny, lambda names: None)
    assert units == [["teacher"], WHOLE]
    assert set(reasons.values()) == {None}


def test_a_suspect_goes_on_alone_and_only_there_is_found_guilty(tiny: Work) -> None:
    units, reasons = played(tiny, always("rkd", Death("exit", "it ended", "rkd", "last words")))
    assert units == [["teacher"], WHOLE, REST, ["rkd"]]
    assert reasons == {"scratch": None, "kd": None, "fitnets": None, "rkd": "it ended"}
    record = tiny.run.trial(next(t.fingerprint for t in tiny.plan.trials if t.method_name == "rkd")).record()
    assert record is not None
    assert record.error == "last words"


def test_an_innocent_suspect_is_none(tiny: Work) -> None:
    units, reasons = played(tiny, deaths(("rkd", Death("memory", "too much", "rkd"))))
    assert units == [["teacher"], WHOLE, REST, ["rkd"]]
    assert set(reasons.values()) == {None}


def test_its_own_time_is_proof_in_company(tiny: Work) -> None:
    units, reasons = played(tiny, always("rkd", Death("time", "too long", "rkd")))
    assert units == [["teacher"], WHOLE, REST]
    assert reasons["rkd"] == "too long"


def test_with_no_suspect_all_go_on_alone(tiny: Work) -> None:
    units, reasons = played(tiny, always("rkd", Death("time", "too long")))
    assert units == [["teacher"], WHOLE, ["scratch"], ["kd"], ["rkd"], ["fitnets"]]
    assert reasons == {"scratch": None, "kd": None, "fitnets": None, "rkd": "too long"}


def test_what_is_killed_from_outside_is_tried_again(tiny: Work) -> None:
    killed = Death("killed", "killed by SIGKILL")
    units, reasons = played(tiny, deaths(("teacher", killed), ("kd", killed), ("kd", killed)))
    assert units == [["teacher"]] * 2 + [WHOLE] * 3
    assert set(reasons.values()) == {None}


def test_but_not_for_ever(tiny: Work) -> None:
    killed = Death("killed", "killed by SIGSEGV", "rkd")
    units, reasons = played(tiny, always("rkd", killed))
    assert units == [["teacher"], WHOLE, REST, *[["rkd"]] * 3]
    assert reasons["rkd"] == "killed by SIGSEGV"


def test_nobody_learns_from_a_teacher_that_failed(tiny: Work) -> None:
    units, reasons = played(tiny, always("teacher", Death("exit", "it ended")))
    assert units == [["teacher"]]
    assert set(reasons.values()) == {"its teacher cnn[width=0.5] (seed 0) failed: it ended"}


def test_a_chain_of_teachers_breaks_at_its_weakest(work: MakeWork) -> None:
    chained = work(methods="kd, 'born_again[generations=2]'", epochs="1")
    reason = "its teacher cnn[width=0.25] (seed 0) failed: it ended"

    def first_generation() -> Iterator[str]:
        for teacher in chained.plan.teachers:
            if teacher.stream.startswith("generation 0"):
                yield teacher.fingerprint

    guilty = set(first_generation())
    stage = Stage(chained, lambda names: None)
    start = stage.start

    def start_or_die(unit: Unit) -> Actor:
        actor = start(unit)
        if guilty.intersection(unit.fingerprints):
            actor._death = Death("exit", "it ended")
        return actor

    stage.start = start_or_die  # type: ignore[method-assign]
    for _ in Dispatcher(chained, stage, Limits(), chained.out / "stop", Notes()).run():
        pass
    records = [chained.run.trial(trial.fingerprint).record() for trial in chained.plan.trials]
    assert {record.method: record.reason for record in records if record} == {
        "scratch": None,
        "kd": None,
        "born_again": reason,
    }


def test_what_nobody_has_begun_is_taken_back_when_time_is_over(tiny: Work) -> None:
    class Over(Limits):
        def clock(self) -> Callable[[], None]:
            looks = iter(range(3))

            def look() -> None:
                if next(looks) == 2:
                    raise OutOfTime("over")

            return look

    class Queued(Actor):
        def news(self) -> list[Event]:
            return []

    class Busy(Stage):
        def start(self, unit: Unit) -> Actor:
            self.units.append([trial.method_name for trial in unit.trials])
            return Queued(unit, self._runner, self._folder / "queued.events", None)

    stage = Busy(tiny, lambda names: None)
    with pytest.raises(OutOfTime):
        for _ in Dispatcher(tiny, stage, Over(), tiny.out / "stop", Notes()).run():
            pass
    assert stage.units == [["teacher"]]


def test_what_concerns_every_worker_ends_the_run(tiny: Work) -> None:
    class Broken(Stage):
        def start(self, unit: Unit) -> Actor:
            actor = super().start(unit)
            actor._log.write("broken", message="the disk is full", hint="free some space")
            return actor

    with pytest.raises(KdbenchError, match="the disk is full") as raised:
        for _ in Dispatcher(tiny, Broken(tiny, lambda names: None), Limits(), tiny.out / "stop", Notes()).run():
            pass
    assert raised.value.hint == "free some space"
