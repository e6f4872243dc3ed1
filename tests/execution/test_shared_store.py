"""What machines share is a store: everything arrives whole, as stated, and where it belongs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbench.errors import BadInput, MissingExtra, StoreError
from kdbench.execution.mirror import _safe, mirror
from kdbench.execution.shared_store import SharedStore, shown
from kdbench.files import SUMS, sha256_of, write_sums

pytest.importorskip("fsspec", reason="the extra 'ray' is not installed")


@pytest.fixture(params=["a folder", "an object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedStore]:
    store = SharedStore((tmp_path / "a store").as_uri() if request.param == "a folder" else "memory://a store")
    yield store
    store.remove("")


def folder_of(path: Path, **contents: str) -> Path:
    """A folder as trials have it."""
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / f"{name}.json").write_text(content)
    write_sums(path, {f"{name}.json": sha256_of(content.encode()) for name, content in contents.items()})
    return path


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.name != SUMS}


def test_files_come_and_go(store: SharedStore, tmp_path: Path) -> None:
    assert store.read("a/b") is None
    assert store.listing() == {}
    store.remove("a")
    store.write("a/b", b"1")
    store.write("a/b", b"22")
    (tmp_path / "c").write_bytes(b"\0" * 1000)
    store.push(tmp_path / "c", "a/c")
    assert store.read("a/b") == b"22"
    assert store.holds("a/b")
    assert not store.holds("a")
    assert sorted(store.listing()) == ["a/b", "a/c"]
    assert sorted(store.listing("a")) == ["b", "c"]
    store.fetch("a/c", tmp_path / "here/c", sha256_of(tmp_path / "c"))
    assert (tmp_path / "here/c").read_bytes() == b"\0" * 1000
    store.remove("a/b")
    assert store.read("a/b") is None
    store.remove("a")
    assert store.listing("a") == {}


def test_a_folder_arrives_whole_and_replaces_what_was_there(store: SharedStore, tmp_path: Path) -> None:
    store.push_folder(folder_of(tmp_path / "there", weights="w", record="r"), "runs/x")
    here = folder_of(tmp_path / "here", predictions="old", record="old")
    (here / "checkpoint").write_text("kept")
    assert store.fetch_folder("runs/x", here)
    assert content(here) == {"checkpoint": "kept", "record.json": "r", "weights.json": "w"}
    assert not store.fetch_folder("runs/y", here)


def test_what_is_not_as_stated_changes_nothing(store: SharedStore, tmp_path: Path) -> None:
    store.push_folder(folder_of(tmp_path / "there", weights="w", record="r"), "x")
    store.write("x/weights.json", b"another")
    here = folder_of(tmp_path / "here", record="old")
    with pytest.raises(StoreError, match=r"cannot fetch .*x/weights.json: ValueError: its SHA-256 is "):
        store.fetch_folder("x", here)
    assert content(here) == {"record.json": "old"}
    with pytest.raises(StoreError, match="its SHA256SUMS is another one"):
        store.fetch_folder("x", here, "0" * 64)


@pytest.mark.parametrize("name", ["../escaped.json", "/tmp/escaped.json", "a/b.json", ".hidden", SUMS])
def test_no_name_leads_elsewhere(store: SharedStore, tmp_path: Path, name: str) -> None:
    store.write(f"x/{SUMS}", f"{sha256_of(b'bad')}  {name}\n".encode())
    store.write("escaped.json", b"bad")
    with pytest.raises(StoreError, match="SHA256SUMS names"):
        store.fetch_folder("x", tmp_path / "here")
    assert not (tmp_path / "escaped.json").exists()
    assert list((tmp_path / "here").iterdir()) == []


def test_a_push_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    store = SharedStore(tmp_path.as_uri())
    store.write("a/b", b"whole")
    with pytest.raises(StoreError, match=r"cannot write file://.*/a/b: FileNotFoundError"):
        store.push(tmp_path / "nowhere", "a/b")
    assert store.read("a/b") == b"whole"
    assert list(store.listing()) == ["a/b"]


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtra, match=r"pip install 'kdbench\[ray\]'"):
        SharedStore("s3://bucket")


@pytest.mark.parametrize("url", ["nonsense://a", "s3://bucket/a"])
def test_a_store_that_cannot_be_used_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=f"'{url}' is no store that can be used here"):
        SharedStore(url)


def test_credentials_are_not_shown() -> None:
    assert shown("ftp://me:secret@host/folder") == "ftp://***@host/folder"
    assert shown("s3://bucket/folder") == "s3://bucket/folder"


def test_data_are_copied_once_and_then_only_what_changed(tmp_path: Path) -> None:
    there, said = tmp_path / "there", list[str]()
    for name in ("sub/a", "sub/b", "c"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)

    def copy(session: str) -> Path:
        return mirror(there.as_uri(), tmp_path / "copies", session, said.append)

    here = copy("first")
    assert {path.relative_to(here).as_posix(): path.read_text() for path in here.rglob("*") if path.is_file()} == {
        name: name for name in ("sub/a", "sub/b", "c")
    }
    (there / "c").write_text("new")
    os.utime(there / "c", (1, 1))
    (there / "sub/b").unlink()
    copy("first")
    assert (here / "c").read_text() == "c", "one command looks once"
    copy("second")
    assert (here / "c").read_text() == "new"
    assert not (here / "sub/b").exists()
    assert [line.split(" fetched ")[1].split(" files")[0] for line in said] == ["3", "1"]


def test_no_data_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there are no data at file://"):
        mirror((tmp_path / "nowhere").as_uri(), tmp_path / "copies", "session", print)


@pytest.mark.parametrize("name", ["../escaped", "/etc/passwd", "a/../../b", ""])
def test_data_stay_in_their_folder(name: str) -> None:
    assert _safe("a/..b/c d") == "a/..b/c d"
    with pytest.raises(StoreError, match="would lie elsewhere"):
        _safe(name)
