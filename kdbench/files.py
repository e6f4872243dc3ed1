"""Atomic writes: a file that exists is whole, whatever was killed meanwhile."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from kdbench.errors import StoreError


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
