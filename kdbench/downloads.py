"""Downloading: a file appears whole and with the right checksum, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from kdbench.errors import MissingData

_CHUNK = 2**20
_TIMEOUT = 30.0  # seconds without an answer or a byte


def download(url: str, target: Path, sha256: str, progress: Callable[[int, int | None], None]) -> None:
    """Fetches `url` into `target`; `progress` gets the bytes that are here, and how many there are where known.

    One process at a time may do so for a `target`: what a killed one left beside it is overwritten.

    Raises:
        MissingData: no network, no such address, or a file with another checksum; names the address.
        OSError: `target` cannot be written. In every case there is no `target` then, unless there was one before.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for chunk in _received(url, progress):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256.lower():
            raise MissingData(f"{url} has another file: its sha256 is {digest.hexdigest()}, expected {sha256}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _received(url: str, progress: Callable[[int, int | None], None]) -> Iterator[bytes]:
    """The content of `url` in chunks; every fault of the network becomes MissingData, unlike those of the disk."""
    try:
        with urlopen(Request(url, headers={"User-Agent": "kdbench"}), timeout=_TIMEOUT) as response:
            stated = response.headers.get("Content-Length", "")
            total, done = int(stated) if stated.isdecimal() else None, 0
            while chunk := response.read(_CHUNK):
                done += len(chunk)
                progress(done, total)
                yield chunk
    except HTTPError as error:
        error.close()  # it is the server's answer, too
        raise MissingData(f"{url} cannot be downloaded: {error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise MissingData(f"{url} cannot be downloaded: {error}") from error
    if total is not None and done < total:
        raise MissingData(f"{url} cannot be downloaded: the connection ended after {done:,} of {total:,} bytes")
