"""Files and folders below an fsspec URL: all that the machines of a cluster need to share."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdbench.errors import BadInput, MissingExtra, StoreError
from kdbench.files import SUMS, sha256_of, stated_sums, write_atomic

# Where a file appears whole or not at all; elsewhere it is written to another name first, which is no copy there.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "obs", "memory"})
_VERSIONS = ("ETag", "etag", "md5Hash", "md5", "checksum", "mtime", "LastModified", "last_modified", "updated")
_FILE = re.compile(r"[\w-][\w.-]*")


class SharedStore:
    """What lies below `url`, by relative names with slashes.

    Nothing is trusted that comes from there: files are taken by their SHA-256, none is unpickled, and no name leads out
    of the folder that it is fetched into.

    Raises:
        MissingExtra: fsspec is not installed.
        BadInput: there are no stores of that kind, or their package is not installed.
        StoreError: of every method, where the store does not answer, or refuses.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise MissingExtra(f"the store '{shown(url)}'", "ray") from None
        try:
            self._fs, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            hint = "fsspec's URLs, e.g. s3://bucket/folder (pip install s3fs), gs://... (gcsfs), file:///shared/folder"
            raise BadInput(f"'{shown(url)}' is no store that can be used here: {error}", hint=hint) from None
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        self._puts_whole = not protocols.isdisjoint(_OBJECT_STORES)
        self.is_of_one_process = "memory" in protocols
        self.url = str(self._fs.unstrip_protocol(self._root))  # absolute, where it is a path

    def __str__(self) -> str:
        return shown(self.url)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        with self._doing("read", name):
            self._fs.invalidate_cache()
            with suppress(FileNotFoundError):
                return bytes(self._fs.cat_file(self._path(name)))
        return None

    def write(self, name: str, content: bytes) -> None:
        """Puts a file into place."""
        with self._doing("write", name), self._whole(name) as path:
            self._fs.pipe_file(path, content)

    def push(self, file: Path, name: str) -> None:
        """Puts a copy of a file into place."""
        with self._doing("write", name), self._whole(name) as path:
            self._fs.put_file(str(file), path)

    def fetch(self, name: str, file: Path, sha256: str | None = None) -> None:
        """Puts a copy into `file`, whole and as stated or not at all.

        Raises:
            StoreError: it has another SHA-256, or is not there.
        """
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
        try:
            with self._doing("fetch", name):
                file.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(self._path(name), str(temporary))
                found = sha256 and sha256_of(temporary)
                if found != sha256:
                    raise ValueError(f"its SHA-256 is {found}, expected {sha256}")
                os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)

    def push_folder(self, folder: Path, name: str) -> None:
        """The files that the folder's SHA256SUMS names, and that at last: a folder that has it is whole."""
        for file in stated_sums(folder):
            self.push(folder / file, f"{name}/{file}")
        self.push(folder / SUMS, f"{name}/{SUMS}")

    def fetch_folder(self, name: str, folder: Path, sha256: str | None = None) -> bool:
        """The files that SHA256SUMS (itself of that `sha256`) names, each checked before any of them replaces one in
        `folder`; the record, which it names last, comes last. False where there is no such folder.

        Raises:
            StoreError: a file is not as stated, or would lie elsewhere; `folder` is as it was.
        """
        stated = self.read(f"{name}/{SUMS}")
        if stated is None:
            return False
        with self._doing("fetch", name):
            if sha256 not in (None, sha256_of(stated)):
                raise ValueError(f"its {SUMS} is another one")
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetched-", dir=folder) as staging:
                arrived = Path(staging)
                write_atomic(arrived / SUMS, stated)
                sums = stated_sums(arrived)
                for file, sha256 in sums.items():
                    if not _FILE.fullmatch(file) or file == SUMS:
                        raise ValueError(f"{SUMS} names {file!r:.80}")
                    self.fetch(f"{name}/{file}", arrived / file, sha256)
                for old in reversed([file for file in stated_sums(folder) if _FILE.fullmatch(file)]):
                    (folder / old).unlink(missing_ok=True)
                for file in (SUMS, *sums):
                    os.replace(arrived / file, folder / file)
        return True

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        with self._doing("look for", name):
            self._fs.invalidate_cache()
            return bool(self._fs.isfile(self._path(name)))

    def listing(self, name: str = "") -> dict[str, str]:
        """The names of all files below a folder, relative to it, with what changes where a file does."""
        path = self._path(name)
        with self._doing("list", name):
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(path, detail=True)
            except FileNotFoundError:
                return {}
        return {file.removeprefix(path).lstrip("/"): _version(facts) for file, facts in found.items()}

    def remove(self, name: str) -> None:
        """A folder and all below it, or a file; nothing where there is none."""
        with self._doing("remove", name), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            if self._fs.exists(self._path(name)):
                self._fs.rm(self._path(name), recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    @contextmanager
    def _whole(self, name: str) -> Iterator[str]:
        """A path to write to; afterwards that is the file."""
        path = self._path(name)
        if self._puts_whole:
            yield path
            return
        temporary = f"{path}.{secrets.token_hex(6)}.partial"
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            yield temporary
            self._fs.mv(temporary, path)
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                self._fs.rm_file(temporary)
            raise

    @contextmanager
    def _doing(self, what: str, name: str) -> Iterator[None]:
        """Every fault becomes a StoreError: each kind of store raises its own."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            hint = "what is finished is kept; the same command goes on once the store answers"
            raise StoreError(f"cannot {what} {self}/{name}: {reason:.500}", hint=hint) from error


def shown(url: str) -> str:
    """A URL without the credentials that may be in it."""
    return re.sub(r"//[^/]*@", "//***@", url)


def _version(facts: Mapping[str, Any]) -> str:
    known = next((str(facts[key]) for key in _VERSIONS if facts.get(key) is not None), "")
    return f"{facts.get('size')} {known}"
