"""Where data sets are found on this machine: $KDBENCH_DATA first, then the download cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kdbench.errors import MissingData


@dataclass(frozen=True)
class DataFile:
    """One file that a data set comes in: a plain file, or an archive that unpacks into one folder of its own.

    Attributes:
        name: its path below a data folder, e.g. "speech/fsdd.zip"; found by its last part too.
        sha256: of the file, as hex; checked before it is used.
        folder: for an archive, the folder that it unpacks into, e.g. "fsdd"; empty for a plain file.
        url: where it may be downloaded; empty where users must get it themselves, as `source` tells them.
    """

    name: str
    sha256: str
    folder: str = ""
    url: str = ""
    source: str = ""


@dataclass(frozen=True)
class DataFolders:
    """The folders that are searched, in order, and the one that downloads and decoded copies go to."""

    search: tuple[Path, ...]
    cache: Path

    @classmethod
    def from_environment(cls) -> DataFolders:
        """$KDBENCH_DATA (several folders are separated as in PATH), then $KDBENCH_CACHE or ~/.cache/kdbench."""
        given = [Path(part).expanduser() for part in os.environ.get("KDBENCH_DATA", "").split(os.pathsep) if part]
        home = os.environ.get("KDBENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "kdbench"
        cache = Path(home).expanduser()
        return cls((*given, cache), cache)

    def find(self, *relative: str) -> Path | None:
        """The first of the paths `relative` that exists in one of the search folders, taken in order."""
        for folder in self.search:
            for path in relative:
                if (folder / path).exists():
                    return folder / path
        return None

    def provide(self, file: DataFile) -> Path:
        """The plain file, or the folder that the archive unpacks into.

        Raises:
            MissingData: it is on none of the search folders.
        """
        base = file.name.rpartition("/")[2]
        return self.require(base, *([file.folder] if file.folder else [file.name, base]))

    def require(self, what: str, *relative: str) -> Path:
        """Like `find`.

        Raises:
            MissingData: none exists; the message lists every place that was looked at.
        """
        found = self.find(*relative)
        if found is None:
            places = ", ".join(str(folder / path) for folder in self.search for path in relative)
            raise MissingData(f"{what} is not on this machine", hint=f"looked at {places}; set KDBENCH_DATA")
        return found
