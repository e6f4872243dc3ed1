"""A disk that is full or read-only: what is finished is kept, and the same command goes on when there is room."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

Run = Callable[..., tuple[int, str, str]]
Told = Callable[[str, str, str], None]
Results = Callable[[Path], dict[str, Any]]


class Disk:
    """A folder on a file system of its own that can be filled: real where a tmpfs can be mounted, else pretended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.full = folder, False
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
        self.mounted = os.name == "posix" and os.geteuid() == 0 and _succeeds(command)

    @property
    def kind(self) -> str:
        return "a full tmpfs" if self.mounted else "ENOSPC from open()"

    def fill(self) -> None:
        self.full = True
        if self.mounted:
            with suppress(OSError), open(self.folder / "ballast", "wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 4096)

    def free(self) -> None:
        self.full = False
        (self.folder / "ballast").unlink(missing_ok=True)

    def unmount(self) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path / "disk")
    yield found
    found.unmount()


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize("name", ["checkpoint.safetensors", "predictions.safetensors", "record.json"])
def test_full(
    kdbench: Run,
    suite: Path,
    begun: Path,
    disk: Disk,
    unharmed: Path,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
    name: str,
) -> None:
    """The disk is full from the moment on at which the file is written for the first time."""

    def filling(path: Any, mode: str = "r", **keywords: Any) -> IO[Any]:
        if name in str(path) and "trials" in str(path):
            disk.fill()
        if disk.full and not disk.mounted and "r" not in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return builtins.open(path, mode, **keywords)

    shutil.copytree(begun, disk.folder, dirs_exist_ok=True)
    command = ("run", str(suite), "--out", str(disk.folder))
    with monkeypatch.context() as patch:
        patch.setattr("kdbench.files.open", filling, raising=False)
        status, _, said = kdbench(*command)
    error = said[said.index("error:") :]
    assert status == 2
    assert "No space left on device" in error
    assert name in error
    left = [path.name for path in disk.folder.rglob(".*") if path.is_file()]
    assert set(left) <= {".lock"}, "nothing half-written is left"

    disk.free()
    assert kdbench(*command)[0] == 0
    assert results(disk.folder) == results(unharmed)
    told(f"disk full while writing {name}", disk.kind, error)


@pytest.mark.usefixtures("untracked")
def test_read_only(kdbench: Run, suite: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    if disk.mounted:
        subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
    else:
        disk.folder.chmod(0o555)
        if os.access(disk.folder, os.W_OK):
            pytest.skip("the superuser may write anywhere, and may not mount here")
    status, _, said = kdbench("run", str(suite), "--out", str(disk.folder))
    assert status == 2
    assert f"cannot write in {disk.folder}" in said
    assert "choose another folder with --out" in said
    assert list(disk.folder.iterdir()) == []
    told("a results folder that is read-only", "tmpfs mounted ro" if disk.mounted else "chmod 555", said)


@pytest.mark.usefixtures("untracked")
def test_read_only_from_some_moment_on(
    kdbench: Run,
    suite: Path,
    begun: Path,
    unharmed: Path,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
) -> None:
    """As a disk with errors is remounted by the kernel."""

    def refusing(path: Any, mode: str = "r", **keywords: Any) -> IO[Any]:
        if "x" in mode and "student" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return builtins.open(path, mode, **keywords)

    command = ("run", str(suite), "--out", str(begun))
    with monkeypatch.context() as patch:
        patch.setattr("kdbench.files.open", refusing, raising=False)
        status, _, said = kdbench(*command)
    assert status == 2
    assert "Read-only file system" in said
    assert kdbench(*command)[0] == 0
    assert results(begun).items() >= results(unharmed).items()
    told("a disk that becomes read-only during the run", "EROFS from open()", said[said.index("error:") :])


def test_full_for_mlflow(kdbench: Run, finished: Path, suite: Path, told: Told) -> None:
    """SQLite itself says that its disk is full: it may not grow by a page."""
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    full = True

    def limit(connection: Any, *_: Any) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages if full else 2**30}")

    event.listen(Pool, "checkout", limit)
    try:
        status, printed, said = kdbench("run", str(suite), "--out", str(finished))
        full = False
        first, second = (kdbench("sync", "--out", str(finished)) for _ in range(2))
    finally:
        event.remove(Pool, "checkout", limit)
    assert status == 0, "the records are the truth, and they are whole"
    assert "Verdict" in printed
    assert "database or disk is full" in said
    assert "nothing is lost; `kdbench sync" in said
    assert (first[0], second[0]) == (0, 0)
    assert "0 runs created, 0 updated" in second[1]
    told("disk full for the MLflow database", "SQLite's max_page_count", said)
