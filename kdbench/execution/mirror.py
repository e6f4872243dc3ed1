"""A data folder at a URL, and each node's copy of it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from kdbench.errors import StoreError
from kdbench.execution.shared_store import SharedStore
from kdbench.files import write_atomic


class _Index(BaseModel):
    """What a copy holds: the version of each file when it was fetched, and for whom it was last looked at."""

    session: str = ""
    versions: dict[str, str] = {}


def mirror(url: str, copies: Path, session: str, say: Callable[[str], None]) -> Path:
    """This node's copy of what lies at `url`, in a folder of its own below `copies`.

    Looked at once per `session`: others wait for who does it. Only files whose size or version changed are fetched;
    those that are gone there are removed. `say` is told of what was fetched.

    Raises:
        BadInput, MissingExtra: such URLs cannot be used here.
        StoreError: there is nothing at `url`, or it cannot be fetched.
    """
    source = SharedStore(url)
    folder = copies / hashlib.sha256(source.url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        index = _read(folder.with_suffix(".json"))
        if index.session != session:
            there = {_safe(name): version for name, version in source.listing().items()}
            if not there:
                raise StoreError(f"there are no data at {source}", hint="see data= of --executor ray")
            fetched = _update(source, folder, index.versions, there)
            write_atomic(folder.with_suffix(".json"), _Index(session=session, versions=there).model_dump_json())
            if fetched:
                say(f"{platform.node()} fetched {fetched} files from {source} to {folder}")
    return folder


def _update(source: SharedStore, folder: Path, before: Mapping[str, str], there: Mapping[str, str]) -> int:
    """The number of files that were fetched."""
    for name in before.keys() - there.keys():
        (folder / _safe(name)).unlink(missing_ok=True)
    fresh = [name for name, version in there.items() if before.get(name) != version or not (folder / name).is_file()]
    for name in fresh:
        source.fetch(name, folder / name)
    return len(fresh)


def _read(path: Path) -> _Index:
    try:
        return _Index.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return _Index()  # everything is fetched again


def _safe(name: str) -> str:
    """A name that stays in the folder."""
    if not name or ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        raise StoreError(f"the data contain {name!r:.80}, which would lie elsewhere")
    return name
