"""Files that a bad disk or a careless hand has changed: found by their SHA-256, said, and computed again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdbench.data import DataFolders
from kdbench.files import SUMS
from kdbench.planner import make_plan
from kdbench.plugins import discover
from kdbench.store.damage import set_aside_damaged
from kdbench.store.run_folder import RunFolder
from kdbench.store.trial_files import TrialFiles
from kdbench.suite_file import load_suite
from kdbench.training import cohort

Run = Callable[..., tuple[int, str, str]]
Told = Callable[[str, str, str], None]
Results = Callable[[Path], dict[str, Any]]


def flip(path: Path) -> None:
    """Changes one bit in the middle of a number or a name, where every reader takes the file for sound."""
    content = bytearray(path.read_bytes())
    place = content.rfind(b"0.") + 2 if path.suffix == ".json" else len(content) - 3
    content[place] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = {"one bit flipped": flip, "cut in half": truncate, "emptied": empty, "deleted": Path.unlink}
FILES = ("record.json", "student.safetensors", "predictions.safetensors", SUMS)


@pytest.fixture
def trial(unharmed: Path, tmp_path: Path) -> TrialFiles:
    """A copy of one finished trial."""
    found = next((unharmed / "tiny@1.0" / "trials").iterdir())
    return TrialFiles(Path(shutil.copytree(found, tmp_path / found.name)))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_every_damage_to_every_file_is_found(trial: TrialFiles, name: str, damage: str) -> None:
    assert trial.damage() is None
    DAMAGES[damage](trial.folder / name)
    found = trial.damage()
    if damage == "deleted" and name in ("record.json", SUMS):
        assert found is None, "a trial that is yet to run, and one of an early kdbench"
        return
    assert found is not None
    assert str(trial.folder) in found.message


@pytest.mark.usefixtures("untracked")
def test_finished_trials_and_teachers(
    kdbench: Run, finished: Path, suite: Path, tmp_path: Path, unharmed: Path, results: Results, told: Told
) -> None:
    """Every kind of file at once: a record, a student, a teacher's record, and its stored answers."""
    first, second = sorted((finished / "tiny@1.0" / "trials").iterdir())
    (teacher,) = (finished / "teachers").iterdir()
    damaged = {
        "record": (first / "record.json", flip),
        "predictions": (second / "predictions.safetensors", truncate),
        "teacher": (teacher / "student.safetensors", flip),
        "stored answers": (next((teacher / "answers").rglob("*.npy")), flip),
    }
    for path, damage in damaged.values():
        damage(path)
    folders = DataFolders((), tmp_path / "cache")
    plan = make_plan(load_suite(str(suite)), discover(), folders)
    said = set_aside_damaged(plan, RunFolder(finished / "tiny@1.0"), finished)
    status, _, shown = kdbench("run", str(suite), "--out", str(finished))
    assert status == 0, shown
    lines = [*said, *shown.splitlines()]
    for what, (path, damage) in damaged.items():
        line = next(line for line in lines if path.parent.name in line)
        told(f"a damaged {what}", {flip: "one bit flipped", truncate: "cut in half"}[damage], line)
    assert results(finished) == results(unharmed)


@pytest.mark.usefixtures("untracked")
def test_a_checkpoint(
    kdbench: Run,
    begun: Path,
    suite: Path,
    unharmed: Path,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
) -> None:
    """One bit of a running mean is another: the trial would go on with it to another end."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    command = ("run", str(suite), "--out", str(begun))
    with monkeypatch.context() as patch:
        patch.setattr(cohort._Loop, "_trained", stopped)
        assert kdbench(*command)[0] == 130
    checkpoints = list(begun.rglob("checkpoint.safetensors"))
    assert len(checkpoints) == 2
    for path in checkpoints:
        flip(path)
    status, _, said = kdbench(*command)
    assert status == 0
    assert said.count("the trial starts over") == 2
    assert results(begun) == results(unharmed)
    told("a damaged checkpoint", "one bit flipped", next(line for line in said.splitlines() if "is damaged" in line))


def test_the_table_of_contents(kdbench: Run, finished: Path, suite: Path, results: Results, unharmed: Path) -> None:
    truncate(finished / "tiny@1.0" / "manifest.json")
    status, _, said = kdbench("leaderboard", "tiny@1.0", "--out", str(finished))
    assert status == 2
    assert "manifest.json is damaged" in said
    assert "finished trials are kept" in said
    assert RunFolder(finished / "tiny@1.0").has_manifest()
    assert results(finished) == results(unharmed)
