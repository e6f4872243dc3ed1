"""Atomic writes: a file that exists is whole, whatever was killed meanwhile; and checksums, by which it stays so."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from kdbench.errors import StoreError

SUMS = "SHA256SUMS"  # as `sha256sum -c` reads it

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes to a temporary name beside `path`, syncs it to disk, and renames it into place.

    Raises:
        StoreError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # with the user's own umask, unlike tempfile: results are for sharing
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}",
            hint="what is finished is kept; free some space or choose another folder with --out, then run again",
        ) from error


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Writes down the SHA-256 of files in `folder`, by name.

    Raises:
        StoreError: as for `write_atomic`.
    """
    write_atomic(folder / SUMS, "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()))


def stated_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in `folder`, by name, as written down; empty where nothing was."""
    try:
        lines = (folder / SUMS).read_bytes().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    found = [_LINE.fullmatch(line) for line in lines]
    return {match[2]: match[1] for match in found if match} or {SUMS: "damaged"}


def sha256_of(content: bytes | Path) -> str:
    """Of bytes, or of a file's."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with open(content, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
