"""Unpacking zip and tar.gz archives: nothing comes out but plain files and folders, inside the target."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from kdbench.errors import MissingData

# Against bombs. ImageNet has 1.3 million files and 150 GB.
MAX_FILES = 3_000_000
MAX_BYTES = 500 * 10**9
# Text is packed to a tenth, a bomb to a thousandth; small archives may do what they like.
MAX_RATIO = 200
SMALL = 10**8

_CHUNK = 2**20
_ENCRYPTED = 1
# What readers of damaged archives raise, besides an OSError that may as well come from a full disk.
_DAMAGE = (
    zipfile.BadZipFile, gzip.BadGzipFile, tarfile.TarError, zlib.error, struct.error, EOFError, ValueError, IndexError,
    OverflowError, NotImplementedError
)  # fmt: skip


class _Refused(Exception):
    """The archive holds what no data set needs; the text says what."""


@dataclass(frozen=True)
class _Member:
    """One entry of an archive. `kind` is "file", "folder", or what else it is."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, target: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Fills `target`, which must not exist, with the files and folders of `archive`, known by its content.

    `progress` gets the bytes of the archive that are read, and its size. Names that lead out of `target`, links,
    devices and doublets are refused, and so is more than MAX_FILES entries, or MAX_BYTES or (beyond SMALL bytes)
    MAX_RATIO times the archive's size in all. What an error leaves of `target` is for the caller to remove.

    Raises:
        MissingData: the archive is damaged or refused; names it.
        OSError: it cannot be read, or `target` cannot be written.
    """
    target.mkdir(parents=True)
    try:
        with archive.open("rb") as raw:
            total = os.fstat(raw.fileno()).st_size
            allowed = min(MAX_BYTES, max(SMALL, MAX_RATIO * total))
            for member in _limited(_members(raw, allowed), allowed):
                _extract(member, target)
                progress(raw.tell(), total)
    except _Refused as error:
        raise MissingData(f"{archive} is not unpacked: {error}") from error
    except _DAMAGE as error:
        raise MissingData(f"{archive} is damaged: {str(error) or type(error).__name__}") from error


def _members(raw: IO[bytes], allowed: int) -> Iterator[_Member]:
    beginning = raw.read(2)
    raw.seek(0)
    if beginning == b"PK":
        return _zip_members(raw)
    if beginning == b"\x1f\x8b":
        return _tar_members(raw, allowed)
    raise _Refused("it is neither a zip nor a tar.gz archive")


def _zip_members(raw: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            yield _Member(info.filename, _zip_kind(info), info.file_size, partial(archive.open, info))


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive comes from a system without modes
    if mode not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
        return "link" if mode == stat.S_IFLNK else "special file"
    if info.is_dir():
        return "folder"
    if info.flag_bits & _ENCRYPTED:
        return "file with a password"
    deflated = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return "file" if deflated else "file not compressed by deflate"


class _Gunzipped(gzip.GzipFile):
    """Refuses to be read beyond `allowed` bytes: tarfile holds a header in memory, however long it says to be."""

    def __init__(self, raw: IO[bytes], allowed: int) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self.allowed = allowed

    def read(self, size: int | None = -1) -> bytes:
        self._within(self.tell() + (size or 0))
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._within(offset)
        return super().seek(offset, whence)

    def _within(self, end: int) -> None:
        # headers come on top of what the files take: a block for each, and padding
        if end > 2 * self.allowed + _CHUNK:
            raise _too_large(self.allowed)


def _tar_members(raw: IO[bytes], allowed: int) -> Iterator[_Member]:
    with _Gunzipped(raw, allowed) as plain, tarfile.open(fileobj=plain, mode="r:") as archive:
        for info in archive:
            link = "hard link" if info.islnk() else "link" if info.issym() else "special file"
            kind = "folder" if info.isdir() else "file" if info.isreg() else link
            yield _Member(info.name, kind, info.size, partial(archive.extractfile, info))
        while plain.read(_CHUNK):  # to the end, where gzip's own checksum stands
            pass


def _limited(members: Iterator[_Member], allowed: int) -> Iterator[_Member]:
    size = 0
    for number, member in enumerate(members, start=1):
        size += member.size
        if number > MAX_FILES:
            raise _Refused(f"it has more than {MAX_FILES:,} entries")
        if size > allowed:
            raise _too_large(allowed)
        yield member


def _too_large(allowed: int) -> _Refused:
    return _Refused(f"its files take more than {allowed:,} bytes, too much for an archive of its size")


def _extract(member: _Member, target: Path) -> None:
    path = target / _inside(member.name)
    if member.kind not in ("file", "folder"):
        raise _Refused(f"its entry {member.name!r:.200} is a {member.kind}")
    try:
        if member.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            _copy(member, file)
    except (FileExistsError, NotADirectoryError) as error:
        raise _Refused(f"it has two entries for {member.name!r:.200}") from error


def _copy(member: _Member, file: IO[bytes]) -> None:
    source = member.open()
    assert source is not None, "tarfile opens every regular file"
    with closing(source):
        shutil.copyfileobj(source, file, _CHUNK)
    if file.tell() != member.size:
        raise EOFError(f"{member.name!r:.200} is cut short")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    # Backslashes and drives lead out of the folder on Windows alone, but an archive means the same everywhere.
    if path.is_absolute() or ".." in path.parts or "\\" in name or PureWindowsPath(name).drive:
        raise _Refused(f"its entry {name!r:.200} leads out of the folder")
    return path
