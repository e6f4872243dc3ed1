"""Where data sets are found on this machine: $KDBENCH_DATA first, then the cache, to which downloads go."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from kdbench.archives import unpack
from kdbench.errors import MissingData

# What is being done, and how many bytes of how many (None: unknown).
Progress = Callable[[str, int, int | None], None]


logger = logging.getLogger(__name__)


def _silent(what: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class DataFile:
    """One file that a data set comes in: a plain file, or an archive that unpacks into one folder of its own.

    Attributes:
        name: its path below a data folder, e.g. "speech/fsdd.zip"; found by its last part too.
        sha256: of the file, as hex; checked before it is used.
        folder: for an archive (zip or tar.gz), the folder that it unpacks into, e.g. "fsdd"; empty for a plain file.
        url: where it may be downloaded; empty where users must get it themselves, as `source` tells them.
    """

    name: str
    sha256: str
    folder: str = ""
    url: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise ValueError(f"the sha256 of {self.name} must be 64 hexadecimal digits, not {self.sha256!r:.80}")

    @property
    def base(self) -> str:
        """The last part of its name."""
        return PurePosixPath(self.name).name


@dataclass(frozen=True)
class DataFolders:
    """The folders that are searched, in order, and the one that downloads, unpacked and decoded copies go to.

    Only `cache` is ever written to. `progress` is called while files are downloaded and unpacked.
    """

    search: tuple[Path, ...]
    cache: Path
    progress: Progress = field(default=_silent, repr=False, compare=False)

    @classmethod
    def from_environment(cls, progress: Progress = _silent) -> DataFolders:
        """$KDBENCH_DATA (several folders are separated as in PATH), then $KDBENCH_CACHE or ~/.cache/kdbench."""
        given = [Path(part).expanduser() for part in os.environ.get("KDBENCH_DATA", "").split(os.pathsep) if part]
        home = os.environ.get("KDBENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "kdbench"
        cache = Path(home).expanduser()
        return cls((*given, cache), cache, progress)

    def find(self, *relative: str) -> Path | None:
        """The first of the paths `relative` that exists in one of the search folders, taken in order."""
        return next((path for path in self._places(*relative) if os.path.exists(path)), None)

    def require(self, what: str, *relative: str) -> Path:
        """Like `find`.

        Raises:
            MissingData: none exists; the message lists every place that was looked at.
        """
        found = self.find(*relative)
        if found is None:
            places = ", ".join(map(str, self._places(*relative)))
            raise MissingData(f"{what} is not on this machine", hint=f"looked at {places}; set KDBENCH_DATA")
        return found

    def provide(self, file: DataFile) -> Path:
        """The plain file, or the folder that the archive unpacks into: found, or unpacked or downloaded once.

        A file is used only when its checksum is right; a folder that someone else has unpacked is taken as it is.

        Raises:
            MissingData: it is neither here nor downloadable, or damaged, or the cache cannot be written. The message
                says what to put where.
        """
        folder = self.unpacked(file)
        if folder is not None:
            return folder
        whole, problems = self._whole(file)
        if whole is None and not file.url:
            raise self._missing(file, problems)
        for problem in problems:
            logger.warning("passed over: %s", problem)
        if whole is not None and not file.folder:
            return whole
        return self._made(file, whole, problems)

    def unpack(self, archive: Path) -> Path:
        """The folder with the content of the user's own `archive` (zip or tar.gz): unpacked once, and anew when it has
        changed.

        Raises:
            MissingData: it is damaged or refused, or the cache cannot be written.
        """
        try:
            with archive.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise MissingData(f"{archive} cannot be read: {error.strerror or error}") from error
        return self._made(DataFile(archive.name, sha256, folder="."), archive, ())

    def unpacked(self, file: DataFile) -> Path | None:
        """The folder of an archive, where someone, or kdbench in its cache, has unpacked it."""
        if not file.folder:
            return None
        beside = str(PurePosixPath(file.name).parent / file.folder)
        places = (*self._places(file.folder, beside), self._own_copy(file) / file.folder)
        return next((path for path in places if os.path.isdir(path)), None)

    def packed(self, file: DataFile) -> tuple[Path, ...]:
        """The files that may be the one meant, going by their names alone."""
        places = (*self._places(file.name, file.base), self.cache / file.name)
        return tuple(path for path in dict.fromkeys(places) if os.path.isfile(path))

    def advice(self, file: DataFile) -> str:
        """What to put where, for someone who lacks it."""
        origin = f", from {file.source or file.url}" if file.source or file.url else ""
        form = f", or unpacked as the folder {file.folder}" if file.folder else ""
        places = " or ".join(map(str, dict.fromkeys(self.search)))
        return (
            f"put {file.name} (sha256 {file.sha256}{origin}){form}, under {places or self.cache}; "
            "KDBENCH_DATA adds folders"
        )

    def _places(self, *relative: str) -> list[Path]:
        return list(dict.fromkeys(folder / path for folder in self.search for path in relative))

    def _own_copy(self, file: DataFile) -> Path:
        """Named by the checksum, so that another version of the archive never finds what this one left."""
        return self.cache / "unpacked" / file.sha256[:16].lower()

    def _whole(self, file: DataFile) -> tuple[Path | None, list[str]]:
        """The first file with the right checksum, and what is wrong with those before it."""
        problems = []
        for path in self.packed(file):
            try:
                with path.open("rb") as content:
                    found = hashlib.file_digest(content, "sha256").hexdigest()
            except OSError as error:
                problems.append(f"{path} cannot be read: {error.strerror or error}")
                continue
            if found == file.sha256.lower():
                return path, problems
            problems.append(f"{path} is another file: its sha256 is {found}, expected {file.sha256}")
        return None, problems

    def _made(self, file: DataFile, whole: Path | None, problems: Sequence[str]) -> Path:
        from filelock import FileLock

        copy = self._own_copy(file)
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(copy.with_suffix(".lock")):  # others wait, and find what this process has made
                whole = whole or self._whole(file)[0] or self._downloaded(file, problems)
                return self._unpacked_once(file, whole, copy) if file.folder else whole
        except OSError as error:
            raise MissingData(
                f"{file.base} cannot be kept in the cache {self.cache}: {error.strerror or error}",
                hint="set KDBENCH_CACHE to a folder that can be written and has room",
            ) from error

    def _downloaded(self, file: DataFile, problems: Sequence[str]) -> Path:
        from kdbench.downloads import download

        target = self.cache / file.name
        try:
            download(file.url, target, file.sha256, partial(self.progress, f"downloading {file.base}"))
        except MissingData as error:
            raise self._missing(file, [*problems, error.message]) from error
        return target

    def _unpacked_once(self, file: DataFile, archive: Path, copy: Path) -> Path:
        """Unpacks beside `copy` and renames, so that `copy` is whole wherever it is; call it under the lock."""
        if not copy.is_dir():
            staging = copy.with_suffix(".partial")
            shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
            try:
                unpack(archive, staging, partial(self.progress, f"unpacking {file.base}"))
                if not (staging / file.folder).is_dir():
                    raise MissingData(f"{archive} holds no folder '{file.folder}'")
                staging.rename(copy)
            except MissingData as error:
                own = file.folder == "."
                hint = "pack it anew, or unpack it yourself" if own else self.advice(file)
                raise MissingData(error.message, hint=hint) from error
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return copy / file.folder

    def _missing(self, file: DataFile, problems: Sequence[str]) -> MissingData:
        said = "; ".join(problems) or f"{file.base} is not on this machine"
        return MissingData(said, hint=self.advice(file))
