"""Both ends of a store through which driver and nodes talk, without the cluster between them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from kdbench.errors import StoreError
from kdbench.execution import node
from kdbench.execution.event_log import EventLog
from kdbench.execution.executors import Local
from kdbench.execution.limits import Limits
from kdbench.execution.node import Assignment
from kdbench.execution.shared_store import SharedStore
from kdbench.execution.store_channel import StoreChannel
from kdbench.execution.units import Unit
from kdbench.execution.work import Job, Work
from kdbench.execution.workplace import Workplace
from kdbench.files import SUMS, sha256_of, write_atomic
from kdbench.measuring.record import Record
from kdbench.plan import Cohort
from kdbench.store.run_folder import RunFolder
from kdbench.store.trial_files import TrialFiles, teacher_files
from kdbench.training.checkpoints import Snapshot

from ..conftest import Notes

pytest.importorskip("fsspec", reason="the extra 'ray' is not installed")

MakeWork = Callable[..., Work]
CarryOut = Callable[..., dict[str, Record]]


@pytest.fixture
def store(tmp_path: Path) -> SharedStore:
    return SharedStore((tmp_path / "store").as_uri())


def channel(store: SharedStore, work: Work, notes: Notes | None = None) -> StoreChannel:
    return StoreChannel(store.url, "", work, Workplace.of(work.run), notes or Notes())


def assignment(channel: StoreChannel, unit: Unit) -> Assignment:
    _, (facts,) = channel.task("unit-0", unit)
    return Assignment(**facts)


def test_a_trial_is_taken_before_anybody_hears_of_it(
    work: MakeWork, carry_out: CarryOut, store: SharedStore, tmp_path: Path
) -> None:
    elsewhere, mine = work("elsewhere"), work("mine")
    carry_out(Local(), elsewhere)
    driver = channel(store, mine)
    (teacher,) = mine.plan.teachers
    there = teacher_files(elsewhere.out, teacher.fingerprint)
    store.push_folder(there.folder, f"{assignment(driver, Unit((teacher,))).trials}/{teacher.fingerprint}")
    courier = node._Courier(store, assignment(driver, Unit((teacher,))), elsewhere.out)

    heard = driver.events("unit-0", Unit((teacher,)))
    assert heard.news() == []
    courier.note("nearly done")
    courier.trial_stored(teacher, "done", None)
    assert [event["event"] for event in heard.news()] == ["note", "trial_stored"]
    assert heard.news() == []
    here = teacher_files(mine.out, teacher.fingerprint)
    assert here.damage() is None
    assert here.record() == there.record()
    assert not [name for name in store.listing("runs") if "/trials/" in name]


def test_what_a_killed_driver_had_no_time_to_take_is_taken(
    work: MakeWork, carry_out: CarryOut, store: SharedStore
) -> None:
    elsewhere, mine, notes = work("elsewhere"), work("mine"), Notes()
    carry_out(Local(), elsewhere)
    driver = channel(store, mine)
    (teacher,), trials = mine.plan.teachers, tuple(mine.plan.trials)
    folder = assignment(driver, Unit((teacher,))).trials
    driver.open(Job.of(mine, Limits()))
    for trial in trials:
        store.push_folder(elsewhere.run.trial(trial.fingerprint).folder, f"{folder}/{trial.fingerprint}")
    store.write(f"{folder}/{trials[0].fingerprint}/record.json", b"{}")
    store.write(f"{folder}/{teacher.fingerprint}/checkpoint.safetensors", b"under way")

    again = channel(store, mine, notes)
    taken = again.open(Job.of(mine, Limits()))
    assert [record.fingerprint for record in taken] == [trial.fingerprint for trial in trials[1:]]
    assert mine.run.trial(trials[0].fingerprint).record() is None
    assert len(notes.said) == 1
    assert notes.said[0].endswith("it is computed again")
    left = {name.split("/", 1)[1] for name in store.listing("runs")}
    session = assignment(again, Unit((teacher,))).session.rpartition("/")[2]
    assert left == {f"trials/{teacher.fingerprint}/checkpoint.safetensors", f"{session}/driver"}
    again.close(over=True)
    assert store.listing("runs") == {}


def test_a_trial_that_nobody_asked_for_is_refused(work: MakeWork, store: SharedStore) -> None:
    driver = channel(store, work())
    with pytest.raises(StoreError, match="no trial of this run"):
        driver.take("../../elsewhere")


def test_another_trial_under_the_name_of_one_is_refused(
    work: MakeWork, carry_out: CarryOut, store: SharedStore
) -> None:
    elsewhere, mine = work("elsewhere"), work("mine")
    carry_out(Local(), elsewhere)
    first, second = mine.plan.trials
    driver = channel(store, mine)
    folder = driver._session.rpartition("/")[0]
    store.push_folder(elsewhere.run.trial(second.fingerprint).folder, f"{folder}/trials/{first.fingerprint}")
    with pytest.raises(StoreError, match="does not hold the trial's record"):
        driver.take(first.fingerprint)


def test_the_word_to_stop_arrives(work: MakeWork, store: SharedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_LOOK", 0.0)
    driver = channel(store, work())
    told = node._told(store, f"{driver._session}/stop")
    assert not told()
    driver.stop.touch()
    driver.stop.touch()
    assert told()


def test_a_teacher_is_fetched_once_per_node(
    work: MakeWork, carry_out: CarryOut, store: SharedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = work(seeds="3", recipe="teachers: fixed")
    carry_out(Local(), mine)
    units = [Unit(cohort.trials) for cohort in mine.plan.cohorts]
    (teacher,) = mine.plan.teachers
    driver, fetched, notes = channel(store, mine), [], Notes()

    really = SharedStore.fetch_folder

    def fetch_folder(self: SharedStore, name: str, *rest: Any) -> bool:
        fetched.append(name)
        return really(self, name, *rest)

    monkeypatch.setattr(SharedStore, "fetch_folder", fetch_folder)
    log = EventLog(tmp_path / "events")

    def provide(number: int) -> None:
        given = assignment(driver, units[number])
        node._provide_teachers(store, given, units[number], tmp_path / "home", tmp_path / f"own {number}", log)

    with ThreadPoolExecutor() as threads:
        list(threads.map(provide, range(len(units))))
    assert len(fetched) == 1
    places = [teacher_files(tmp_path / f"own {number}", teacher.fingerprint) for number in range(len(units))]
    assert all(files.record() is not None and files.weights() for files in places)

    (places[0].folder / "student.safetensors").write_bytes(b"bit rot")
    for path in tmp_path.glob("own */teachers/*"):
        path.unlink()
    provide(0)
    assert len(fetched) == 2, "a damaged copy is fetched again"
    assert places[0].damage() is None
    assert notes.said == []


def test_a_checkpoint_goes_with_all_that_it_needs_whatever_the_worker_does_meanwhile(
    work: MakeWork, store: SharedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = work(epochs="6")
    trial, (teacher,) = next(iter(mine.plan.trials)), mine.plan.teachers
    assert trial.kept_epochs
    last = RunFolder(tmp_path / "own/run").trial(trial.fingerprint).checkpoint
    earlier = [Snapshot.of(last, epoch).path for epoch in trial.kept_epochs]
    cohort, told = Cohort((trial,)), assignment(channel(store, mine), Unit((teacher,)))
    courier = node._Courier(store, told, tmp_path / "own")
    last.parent.mkdir(parents=True)
    courier.epoch_ended(cohort, 1, {trial: {}})
    write_atomic(last, b"first")
    courier.epoch_ended(cohort, 1, {trial: {}})
    for file in (*earlier, last):
        write_atomic(file, b"second")

    def push(self: SharedStore, file: Path, name: str, really: Callable[..., None] = SharedStore.push) -> None:
        pushed.append(name.rpartition("/")[2])
        write_atomic(last, b"third")
        really(self, file, name)

    pushed: list[str] = []
    monkeypatch.setattr(SharedStore, "push", push)
    courier.epoch_ended(cohort, 2, {trial: {}})
    assert pushed == [*(file.name for file in earlier), last.name]
    assert store.read(f"{told.trials}/{trial.fingerprint}/{last.name}") == b"second"
    TrialFiles(last.parent).discard_checkpoint()
    courier.epoch_ended(cohort, 3, {trial: {}})

    elsewhere = node._Courier(store, told, tmp_path / "another")
    elsewhere.fetch_checkpoints(Unit((trial,)))
    fetched = RunFolder(tmp_path / "another/run").trial(trial.fingerprint).folder
    assert {file.name: file.read_bytes() for file in fetched.iterdir()} == dict.fromkeys(pushed, b"second")


def test_units_of_killed_processes_are_cleared_and_others_are_not(tmp_path: Path) -> None:
    for name in ("dead", "alive"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.lock").touch()
    with FileLock(tmp_path / "alive.lock"), node._quarters(tmp_path, "new") as own:
        assert own.folder.is_dir()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["alive", "alive.lock", "new", "new.lock"]
    assert not own.folder.exists()
    assert not (tmp_path / "new.lock").exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write in .*file/units"), node._quarters(tmp_path / "file/units", "a"):
        pass


def test_teachers_lie_in_the_store_by_their_content(work: MakeWork, carry_out: CarryOut, store: SharedStore) -> None:
    mine = work()
    carry_out(Local(), mine)
    (teacher,), (cohort,) = mine.plan.teachers, mine.plan.cohorts
    driver = channel(store, mine)
    for _ in range(2):
        ((fingerprint, sha256),) = assignment(driver, Unit(cohort.trials)).teachers.items()
    assert fingerprint == teacher.fingerprint
    stated = (teacher_files(mine.out, fingerprint).folder / SUMS).read_bytes()
    assert sha256 == sha256_of(stated)
    assert store.read(f"{node.teacher_folder(fingerprint, sha256)}/{SUMS}") == stated
