"""Data sets: found, checked, unpacked once and downloaded once, whatever is broken on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket

import pytest

from kdbench import MissingData, archives
from kdbench.data import DataFile, DataFolders

FILES = {"set/a.txt": b"alpha", "set/deep/b.bin": bytes(range(256)) * 300, "set/empty": b""}


def write_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes] = FILES, *others: tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return path


def described(path: Path, root: Path, **fields: str) -> DataFile:
    """The data file that lies at `path` below `root`."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return DataFile(name=path.relative_to(root).as_posix(), sha256=sha256, **fields)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below `folder`; locks, which stay, are not counted."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def given(tmp_path: Path) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    return folder


@pytest.fixture
def folders(tmp_path: Path, given: Path) -> DataFolders:
    return DataFolders((given, tmp_path / "cache"), tmp_path / "cache")


WRITERS = {"set.zip": write_zip, "set.tar.gz": write_tar}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("place", ["", "speech"])
def test_an_archive_is_unpacked_once_into_the_cache(
    given: Path, folders: DataFolders, name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = WRITERS[name](given / place / name)
    file = DataFile(f"speech/{name}", hashlib.sha256(path.read_bytes()).hexdigest(), folder="set")
    assert folders.unpacked(file) is None
    folder = folders.provide(file)
    assert folder.is_relative_to(folders.cache)
    assert contents(folder.parent) == FILES
    assert contents(folders.cache).keys() == {f"{folder.parent.relative_to(folders.cache)}/{each}" for each in FILES}
    monkeypatch.setattr("kdbench.data.unpack", None)
    assert folders.provide(file) == folder == folders.unpacked(file)
    path.unlink()  # no longer needed
    assert folders.provide(file) == folder


def test_progress_ends_at_the_size_of_the_archive(given: Path, tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        path = write(given / name)
        seen: list[tuple[str, int, int | None]] = []
        folders = DataFolders((given,), tmp_path / name, progress=lambda *args, seen=seen: seen.append(args))
        folders.provide(described(path, given, folder="set"))
        assert {what for what, _, _ in seen} == {f"unpacking {name}"}
        assert {total for _, _, total in seen} == {path.stat().st_size}
        assert len(seen) == len(FILES)


@pytest.mark.parametrize("place", ["set", "speech/set"])
def test_an_unpacked_folder_comes_first_and_is_used_in_place(given: Path, folders: DataFolders, place: str) -> None:
    write_zip(given / "speech" / "set.zip", {"set/a.txt": b"from the archive"})
    (given / place).mkdir()
    file = described(given / "speech" / "set.zip", given, folder="set")
    assert folders.provide(file) == given / place
    assert not folders.cache.exists()


def test_another_version_of_an_archive_does_not_find_the_first_one_unpacked(given: Path, folders: DataFolders) -> None:
    first = folders.provide(described(write_zip(given / "set.zip"), given, folder="set"))
    second = folders.provide(described(write_zip(given / "set.zip", {"set/new": b"n"}), given, folder="set"))
    assert contents(second) == {"new": b"n"}
    assert contents(first.parent) == FILES


@pytest.mark.parametrize("name", ["nlp/rows.tsv", "rows.tsv"])
def test_a_plain_file_is_returned_in_place(given: Path, folders: DataFolders, name: str) -> None:
    (given / name).parent.mkdir(exist_ok=True)
    (given / name).write_bytes(b"1\t2")
    file = DataFile("nlp/rows.tsv", hashlib.sha256(b"1\t2").hexdigest().upper())
    assert folders.provide(file) == given / name
    assert not folders.cache.exists()


def test_names_with_spaces_and_umlauts(given: Path, folders: DataFolders) -> None:
    files = {"größe 1/数据 (2).txt": b"x", "größe 1/ä b/c": b"y"}
    for path in (write_zip(given / "meine daten" / "größe 1.zip", files), write_tar(given / "größe 2.tar.gz", files)):
        folder = folders.provide(described(path, given, folder="größe 1"))
        assert contents(folder.parent) == files


def test_tar_entries_for_folders_and_the_current_folder(given: Path, folders: DataFolders) -> None:
    entries = [tarfile.TarInfo(name) for name in (".", "./set/sub")]
    for each in entries:
        each.type = tarfile.DIRTYPE
    path = write_tar(given / "set.tar.gz", {"./set/a.txt": b"alpha"}, *entries)
    folder = folders.provide(described(path, given, folder="set"))
    assert sorted(each.name for each in folder.iterdir()) == ["a.txt", "sub"]
    assert (folder / "sub").is_dir()


def test_a_wrong_checksum_names_file_expected_and_found(given: Path, folders: DataFolders) -> None:
    for name, folder in (("set.zip", "set"), ("rows.tsv", "")):
        (given / name).write_bytes(b"other")
        with pytest.raises(MissingData) as raised:
            folders.provide(DataFile(name, "0" * 64, folder, source="the moon"))
        for expected in (str(given / name), "0" * 64, hashlib.sha256(b"other").hexdigest()):
            assert expected in raised.value.message
        assert "from the moon" in str(raised.value.hint)
    assert not folders.cache.exists()


def test_a_good_file_is_found_behind_a_wrong_one(
    given: Path, folders: DataFolders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write_zip(tmp_path / "second" / "set.zip")
    (given / "set.zip").write_bytes(b"PK cut short")
    both = DataFolders((given, tmp_path / "second"), folders.cache)
    assert contents(both.provide(described(good, tmp_path / "second", folder="set")).parent) == FILES
    assert f"{given / 'set.zip'} is another file" in caplog.text


def test_what_is_missing_is_said_with_place_source_and_checksum(given: Path, folders: DataFolders) -> None:
    with pytest.raises(MissingData) as raised:
        folders.provide(DataFile("speech/set.zip", "ab" * 32, folder="set", source="https://example.org/set"))
    assert raised.value.message == "set.zip is not on this machine"
    assert raised.value.hint == (
        f"put speech/set.zip (sha256 {'ab' * 32}, from https://example.org/set), or unpacked as the folder set, "
        f"under {given} or {folders.cache}; KDBENCH_DATA adds folders"
    )
    assert not folders.cache.exists()


def test_a_checksum_that_is_none_is_refused_when_declared() -> None:
    with pytest.raises(ValueError, match=r"the sha256 of a\.zip must be 64 hexadecimal digits"):
        DataFile("a.zip", "abc")


def cut(write: Callable[[Path], Path], keep: Callable[[int], int]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        data = write(path).read_bytes()
        path.write_bytes(data[: keep(len(data))])

    return make


def flipped(path: Path) -> None:
    """One bit of a stored member is wrong, so that only its checksum tells."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/a.txt", b"alpha")
    path.write_bytes(path.read_bytes().replace(b"alpha", b"alphb", 1))


def zip_with_mode(mode: int, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/a.txt", b"alpha")
        info = zipfile.ZipInfo("set/odd")
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, b"/etc/passwd")


def encrypted(path: Path) -> None:
    """The flag of encryption is set in both headers of the only member."""
    data = bytearray(write_zip(path, {"set/a": b"x"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def overstated(path: Path) -> None:
    """The directory of the zip tells one byte more than the only member has."""
    data = bytearray(write_zip(path, {"set/a": b"xyz"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 24] += 1
    path.write_bytes(data)


def tar_with(kind: bytes, path: Path) -> None:
    info = tarfile.TarInfo("set/odd")
    info.type, info.linkname = kind, "set/a.txt"
    write_tar(path, FILES, info)


def with_entry(name: str, write: Callable[[Path, dict[str, bytes]], Path], path: Path) -> None:
    write(path, {**FILES, name: b"evil"})


def bzipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("set/a", b"x" * 100)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "zip without its end": ("set.zip", cut(write_zip, lambda size: size - 30), "is damaged"),
    "zip cut in half": ("set.zip", cut(write_zip, lambda size: size // 2), "is damaged"),
    "zip with a flipped bit": ("set.zip", flipped, "is damaged"),
    "tar.gz cut in half": ("set.tar.gz", cut(write_tar, lambda size: size // 2), "is damaged"),
    "tar.gz without its last byte": ("set.tar.gz", cut(write_tar, lambda size: size - 1), "is damaged"),
    "gzip of no tar": ("set.tar.gz", lambda path: path.write_bytes(gzip.compress(b"text" * 500)), "is damaged"),
    "neither": ("set.zip", lambda path: path.write_bytes(b"<html>not found</html>"), "neither a zip nor a tar.gz"),
    "empty": ("set.zip", lambda path: path.write_bytes(b""), "neither a zip nor a tar.gz"),
    "zip with ..": ("set.zip", partial(with_entry, "../x", write_zip), "'../x' leads out of the folder"),
    "zip with .. inside": ("set.zip", partial(with_entry, "set/../../x", write_zip), "leads out of the folder"),
    "zip with an absolute path": ("set.zip", partial(with_entry, "/x", write_zip), "'/x' leads out of the folder"),
    "zip with a backslash": ("set.zip", partial(with_entry, "..\\x", write_zip), "leads out of the folder"),
    "zip with a drive": ("set.zip", partial(with_entry, "C:x", write_zip), "'C:x' leads out of the folder"),
    "zip with a link": ("set.zip", partial(zip_with_mode, stat.S_IFLNK | 0o777), "'set/odd' is a link"),
    "zip with a device": ("set.zip", partial(zip_with_mode, stat.S_IFBLK | 0o666), "'set/odd' is a special file"),
    "encrypted zip": ("set.zip", encrypted, "'set/a' is a file with a password"),
    "zip with a wrong size": ("set.zip", overstated, "is damaged: 'set/a' is cut short"),
    "zip of another compression": ("set.zip", bzipped, "'set/a' is a file not compressed by deflate"),
    "zip with a file as a folder": ("set.zip", partial(with_entry, "set/a.txt/x", write_zip), "two entries for"),
    "tar with ..": ("set.tar.gz", partial(with_entry, "../x", write_tar), "'../x' leads out of the folder"),
    "tar with an absolute path": ("set.tar.gz", partial(with_entry, "/x", write_tar), "'/x' leads out of the folder"),
    "tar with a link": ("set.tar.gz", partial(tar_with, tarfile.SYMTYPE), "'set/odd' is a link"),
    "tar with a hard link": ("set.tar.gz", partial(tar_with, tarfile.LNKTYPE), "'set/odd' is a hard link"),
    "tar with a device": ("set.tar.gz", partial(tar_with, tarfile.CHRTYPE), "'set/odd' is a special file"),
    "tar with a pipe": ("set.tar.gz", partial(tar_with, tarfile.FIFOTYPE), "'set/odd' is a special file"),
    "tar with a doublet": (
        "set.tar.gz",
        partial(with_entry, "./set/a.txt", write_tar),
        "two entries for './set/a.txt'",
    ),
    "no such folder": ("set.zip", partial(write_zip, files={"other/a": b""}), "holds no folder 'set'"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_archive_gives_its_error_and_leaves_nothing(
    given: Path, folders: DataFolders, tmp_path: Path, case: str
) -> None:
    name, make, expected = BAD[case]
    make(given / name)
    file = described(given / name, given, folder="set", source="its authors")
    with pytest.raises(MissingData) as raised:
        folders.provide(file)
    assert str(given / name) in raised.value.message
    assert expected in raised.value.message
    assert "its authors" in str(raised.value.hint)
    assert contents(tmp_path).keys() == {f"given/{name}"}
    assert [path for path in folders.cache.rglob("*") if path.suffix != ".lock"] == [folders.cache / "unpacked"]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("limit", "expected"), [("MAX_FILES", "more than 2 entries"), ("MAX_BYTES", "more than 2 byt")]
)
def test_bombs_are_refused(
    given: Path, folders: DataFolders, name: str, limit: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, limit, 2)
    path = WRITERS[name](given / name)
    with pytest.raises(MissingData, match=expected):
        folders.provide(described(path, given, folder="set"))
    assert contents(folders.cache) == {}


def test_what_stops_the_unpacking_leaves_nothing(given: Path, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int | None) -> None:
        assert contents(tmp_path / "cache"), "it must stop midway"
        raise KeyboardInterrupt

    for name, write in WRITERS.items():
        file = described(write(given / name), given, folder="set")
        folders = DataFolders((given,), tmp_path / "cache", progress=stop)
        with pytest.raises(KeyboardInterrupt):
            folders.provide(file)
        assert contents(tmp_path / "cache") == {}
        assert contents(DataFolders((given,), tmp_path / name).provide(file).parent) == FILES


def test_after_a_kill_midway_the_next_one_unpacks_all_of_it(given: Path, folders: DataFolders) -> None:
    file = described(write_zip(given / "set.zip"), given, folder="set")
    code = (
        "import os, pathlib, signal, sys\n"
        "from kdbench.data import DataFile, DataFolders\n"
        "given, cache, sha256 = sys.argv[1:]\n"
        "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "folders = DataFolders((pathlib.Path(given),), pathlib.Path(cache), progress=kill)\n"
        "folders.provide(DataFile('set.zip', sha256, 'set'))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(given), str(folders.cache), file.sha256], check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = folders.cache.glob("unpacked/*.partial")
    (left / "stray").touch()
    assert folders.unpacked(file) is None
    assert contents(folders.provide(file).parent) == FILES
    assert not left.exists()


def test_a_search_folder_is_never_written_to(given: Path, folders: DataFolders) -> None:
    file = described(write_zip(given / "speech" / "set.zip"), given, folder="set")
    before = {path: path.stat().st_mtime_ns for path in (given, *given.rglob("*"))}
    for path in (given / "speech", given):
        path.chmod(0o555)  # no obstacle to root: so the times are compared, too
    try:
        assert contents(folders.provide(file).parent) == FILES
        assert {path: path.stat().st_mtime_ns for path in (given, *given.rglob("*"))} == before
    finally:
        for path in (given, given / "speech"):
            path.chmod(0o755)


def test_a_cache_that_cannot_be_written_is_named(given: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folders = DataFolders((given,), tmp_path / "file" / "cache")
    with pytest.raises(MissingData) as raised:
        folders.provide(described(write_zip(given / "set.zip"), given, folder="set"))
    assert f"cannot be kept in the cache {folders.cache}" in raised.value.message
    assert "KDBENCH_CACHE" in str(raised.value.hint)


def test_a_full_disk_leaves_nothing(given: Path, folders: DataFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: io.BytesIO, target: io.BytesIO, length: int) -> None:
        target.write(source.read(3))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(MissingData, match="No space left on device"):
        folders.provide(described(write_zip(given / "set.zip"), given, folder="set"))
    assert contents(folders.cache) == {}


@dataclass
class Server:
    """A web server on this machine that offers `folder`, and what it was asked for."""

    folder: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)
    pretended: int = 0  # bytes that it announces beyond those that it sends


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    offered = Server(tmp_path / "offered")
    offered.folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(offered.folder))

        def do_GET(self) -> None:
            offered.asked.append(self.path)
            super().do_GET()

        def send_header(self, keyword: str, value: str) -> None:
            longer = keyword == "Content-Length"
            super().send_header(keyword, str(int(value) + offered.pretended) if longer else value)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        offered.address = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield offered
        listening.shutdown()
        thread.join()


def test_a_file_is_downloaded_once(server: Server, folders: DataFolders) -> None:
    (server.folder / "rows.tsv").write_bytes(b"1\t2")
    file = DataFile("nlp/rows.tsv", hashlib.sha256(b"1\t2").hexdigest(), url=f"{server.address}/rows.tsv")
    seen: list[tuple[str, int, int | None]] = []
    watched = DataFolders(folders.search, folders.cache, progress=lambda *args: seen.append(args))
    for _ in range(2):
        assert watched.provide(file) == folders.cache / "nlp" / "rows.tsv"
    assert contents(folders.cache) == {"nlp/rows.tsv": b"1\t2"}
    assert server.asked == ["/rows.tsv"]
    assert seen == [("downloading rows.tsv", 3, 3)]


def test_an_archive_is_downloaded_and_unpacked_once_by_many_at_a_time(server: Server, folders: DataFolders) -> None:
    file = described(write_zip(server.folder / "set.zip"), server.folder, folder="set", url=f"{server.address}/set.zip")
    with ThreadPoolExecutor(4) as threads:
        found = {future.result() for future in [threads.submit(folders.provide, file) for _ in range(4)]}
    assert len(found) == 1
    assert contents(found.pop().parent) == FILES
    assert server.asked == ["/set.zip"]


def test_a_damaged_copy_in_the_cache_is_downloaded_again(server: Server, folders: DataFolders) -> None:
    (server.folder / "rows.tsv").write_bytes(b"1\t2")
    file = DataFile("rows.tsv", hashlib.sha256(b"1\t2").hexdigest(), url=f"{server.address}/rows.tsv")
    folders.provide(file).write_bytes(b"1\t3")
    assert folders.provide(file).read_bytes() == b"1\t2"


def refused() -> str:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("wrong checksum", f"expected {'0' * 64}"),
        ("not found", "HTTP Error 404"),
        ("refused", "Connection refused"),
        ("cut short", "the connection ended after 3 of 13 bytes"),
        ("no address", "cannot be downloaded"),
    ],
)
def test_a_failed_download_says_why_and_leaves_nothing(
    server: Server, folders: DataFolders, case: str, expected: str
) -> None:
    (server.folder / "rows.tsv").write_bytes(b"1\t2")
    server.pretended = 10 if case == "cut short" else 0
    urls = {"not found": f"{server.address}/nothing", "refused": refused(), "no address": "not a URL"}
    url = urls.get(case, f"{server.address}/rows.tsv")
    with pytest.raises(MissingData) as raised:
        folders.provide(DataFile("rows.tsv", "0" * 64, url=url))
    assert url in raised.value.message
    assert expected in raised.value.message
    assert f"put rows.tsv (sha256 {'0' * 64}, from {url}), under" in str(raised.value.hint)
    assert contents(folders.cache) == {}


def test_folders_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KDBENCH_DATA", "KDBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    home = tmp_path / ".cache" / "kdbench"
    assert DataFolders.from_environment() == DataFolders((home,), home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert DataFolders.from_environment().cache == tmp_path / "xdg" / "kdbench"
    monkeypatch.setenv("KDBENCH_CACHE", "~/own")
    monkeypatch.setenv("KDBENCH_DATA", os.pathsep.join(["~/a", "", "/b"]))
    own = tmp_path / "own"
    assert DataFolders.from_environment() == DataFolders((tmp_path / "a", Path("/b"), own), own)


REAL = {
    "fsdd": ("speech/fsdd.zip", "16cfefbc5553c63b4149ee3a7de88372a1b84fa3c2488af5df8df87f2d256a79", 3002),
    "CMAPSS": ("sensor/cmapss_fd001.zip", "62853dd2a6d9c790ef5d28c7111b832e8a87dbd435e9d29d1eabcae6db15b08c", 4),
}


@pytest.mark.parametrize("folder", REAL)
def test_real_archives(folder: str, tmp_path: Path) -> None:
    name, sha256, count = REAL[folder]
    search = DataFolders.from_environment().search
    archive = DataFolders(search, tmp_path).find(name)
    if archive is None:
        pytest.skip(f"{name} is not under $KDBENCH_DATA")
    given = archive.parents[len(Path(name).parents) - 1]
    unpacked = DataFolders((given,), tmp_path / "cache").provide(DataFile(name, sha256, folder))
    assert unpacked.is_relative_to(tmp_path)
    assert len(contents(unpacked)) == count
