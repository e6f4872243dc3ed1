"""`kdbench data`: what a person reads about data sets that are here, packed, missing or broken."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from rich.console import Console

import kdbench.cli.data as commands
from kdbench import Data, DataFile, DataFolders, DataSpec, Task, TensorSplit
from kdbench.cli.doctor import _data_sets
from kdbench.plugins import Origin, Plugin, Registry

SHA256 = "ab" * 32


@dataclass(frozen=True)
class Packed(Task):
    """Tones, of which an archive is here."""

    data_files: ClassVar[tuple[DataFile, ...]] = (
        DataFile("tones/tones.zip", SHA256, folder="tones"),
        DataFile("labels.tsv", SHA256, url="https://example.org/labels.tsv"),
    )


@dataclass(frozen=True)
class ByFolder(Task):
    """A set whose own library reads it."""

    files: ClassVar[tuple[str, ...]] = ("pictures", "pictures.tar")


@dataclass(frozen=True)
class Bare(Task):
    """Needs no file."""


def registry(**targets: str | type) -> Registry:
    origin = Origin("test", "1", __name__)
    found = Registry()
    found.plugins["task"] = {name: Plugin("task", name, target, origin) for name, target in targets.items()}
    return found


def test_states(given: Path) -> None:
    known = registry(packed=Packed, folder=ByFolder, bare=Bare, broken="no.such.module:Task")
    folders = DataFolders.from_environment()

    def states() -> dict[tuple[str, str], tuple[str, str]]:
        return {(each.task, each.file): (each.state, each.where) for each in commands.data_states(known, folders)}

    def state(task: str, file: str) -> tuple[str, str]:
        return states()[task, file]

    assert state("packed", "tones/tones.zip") == ("missing", folders.advice(Packed.data_files[0]))
    label_state, label_where = state("packed", "labels.tsv")
    assert label_state == "missing"
    assert label_where.startswith("downloaded at its first use from https://example.org/labels.tsv, or put labels.tsv")
    assert state("folder", "pictures") == ("missing", "downloaded at its first use")
    assert state("bare", "")[0] == "none"
    assert state("broken", "")[0] == "broken"
    assert "task 'broken' of test 1 does not load: ModuleNotFoundError" in state("broken", "")[1]

    (given / "tones.zip").touch()
    (given / "labels.tsv").touch()
    (given / "pictures").mkdir()
    assert state("packed", "tones/tones.zip") == ("packed", f"{given / 'tones.zip'}, unpacked at its first use")
    assert state("packed", "labels.tsv") == ("found", str(given / "labels.tsv"))
    assert state("folder", "pictures") == ("found", str(given / "pictures"))
    (given / "tones" / "tones").mkdir(parents=True)
    assert state("packed", "tones/tones.zip")[0] == "found"


def test_list_prints_what_is_known_and_doctor_agrees(
    kdbench: Callable[..., tuple[int, str, str]], given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = registry(packed=Packed, bare=Bare)
    monkeypatch.setattr(commands, "discover", lambda: known)
    (given / "labels.tsv").touch()
    listed = json.loads(kdbench("data", "list", "--json")[1])
    assert [(each["task"], each["file"], each["state"]) for each in listed] == [
        ("packed", "tones/tones.zip", "missing"),
        ("packed", "labels.tsv", "found"),
        ("bare", "", "none"),
    ]
    assert _data_sets(known) == [f"packed: {listed[0]['where']}", f"packed: {given / 'labels.tsv'}"]
    monkeypatch.setattr(commands, "out", Console(width=1000))  # wide enough that no path is folded
    status, printed, _ = kdbench("data", "list")
    assert status == 0
    assert SHA256 in printed
    assert str(given / "labels.tsv") in printed


def test_list_knows_every_built_in_task(kdbench: Callable[..., tuple[int, str, str]], given: Path) -> None:
    import kdbench_plugins

    listed = json.loads(kdbench("data", "list", "--json")[1])
    assert {each["task"] for each in listed} == set(kdbench_plugins.kdbench_tasks())
    assert "broken" not in {each["state"] for each in listed}


def test_where_shows_folders_and_variables(
    kdbench: Callable[..., tuple[int, str, str]], given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    blocked = tmp_path / "file" / "cache"
    monkeypatch.setenv("KDBENCH_CACHE", str(blocked))
    shown = json.loads(kdbench("data", "where", "--json")[1])
    assert shown == {
        "folders": [
            {"folder": str(given), "use": "search", "exists": True, "writable": True},
            {"folder": str(blocked), "use": "cache", "exists": False, "writable": False},
        ],
        "variables": {"KDBENCH_DATA": str(given), "KDBENCH_CACHE": str(blocked), "XDG_CACHE_HOME": None},
    }
    _, printed, _ = kdbench("data", "where")
    assert f"KDBENCH_DATA: {given}" in printed
    assert "XDG_CACHE_HOME: not set" in printed
    monkeypatch.delenv("KDBENCH_DATA")
    assert "set KDBENCH_DATA to the folders" in kdbench("data", "where")[1]


def test_where_imports_no_torch(given: Path) -> None:
    code = (
        "import sys\n"
        "sys.argv = ['kdbench', 'data', 'where']\n"
        "from kdbench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not {'torch', 'mlflow', 'pandas'} & sys.modules.keys()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert ended.returncode == 0, ended.stderr
    assert str(given) in ended.stdout


@dataclass(frozen=True)
class Tones(Task):
    """Ten numbers in an archive, their parity to be learnt."""

    data_files: ClassVar[tuple[DataFile, ...]] = ()

    def load(self, folders: DataFolders) -> Data:
        text = (folders.provide(self.data_files[0]) / "numbers.txt").read_text()
        numbers = torch.tensor([int(number) for number in text.split()])
        split = TensorSplit(numbers[:, None].float(), numbers % 2)
        return Data(DataSpec((1,), 2), split, split)


def test_prepare_unpacks_and_describes_every_task(
    kdbench: Callable[..., tuple[int, str, str]],
    given: Path,
    tiny_suite: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with zipfile.ZipFile(given / "tones.zip", "w") as archive:
        archive.writestr("tones/numbers.txt", " ".join(map(str, range(1000, 3000))))
    sha256 = hashlib.sha256((given / "tones.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(Tones, "data_files", (DataFile("tones.zip", sha256, folder="tones"),))
    monkeypatch.setattr(commands, "discover", lambda: registry(tones=Tones))
    suite = str(tiny_suite(tasks="tones"))
    status, printed, said = kdbench("data", "prepare", suite)
    assert status == 0, said
    header, row = printed.splitlines()
    assert header.split() == ["task", "train", "validation", "test", "classes", "digest"]
    assert row.split()[:5] == ["tones", "1,800", "200", "2,000", "2"]
    assert said == "unpacking tones.zip\n"
    assert kdbench("data", "prepare", suite) == (0, printed, "")  # nothing is unpacked again, and the digest stays


def test_prepare_loads_what_it_can_and_says_what_is_missing(
    kdbench: Callable[..., tuple[int, str, str]], given: Path, tiny_suite: Callable[..., Path]
) -> None:
    suite = tiny_suite(tasks="'image_folder[path=nowhere]', 'digits[train_examples=200]'")
    status, printed, said = kdbench("data", "prepare", str(suite))
    assert status == 2
    assert "digits[train_examples=200]  180" in printed
    assert "error: 1 of 2 tasks of tiny@1.0 cannot be loaded" in said
    assert "image_folder[path=nowhere]: there is no folder or archive 'nowhere'" in said
    assert str(given) in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("tasks", "expected"), [("digit", "did you mean 'digits'?"), ("'digits[train_examples=0]'", "tiny.yaml")]
)
def test_prepare_refuses_a_wrong_task_before_it_loads_any(
    kdbench: Callable[..., tuple[int, str, str]],
    given: Path,
    tiny_suite: Callable[..., Path],
    tasks: str,
    expected: str,
) -> None:
    status, printed, said = kdbench("data", "prepare", str(tiny_suite(tasks=f"digits, {tasks}")))
    assert status == 2
    assert printed == ""
    assert expected in said
