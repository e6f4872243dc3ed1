"""No network, and a download that is not what it should be."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]
Told = Callable[[str, str, str], None]

PLUGIN = '''
from dataclasses import dataclass

from kdbench import DataFile
from kdbench.hookspecs import hookimpl
from kdbench_plugins.tasks.digits import Digits


@dataclass(frozen=True)
class Remote(Digits):
    """Handwritten digits behind a download."""

    data_files = (DataFile("remote.bin", "{sha256}", url="{url}"),)

    def load(self, folders):
        folders.provide(self.data_files[0])
        return super().load(folders)


@hookimpl
def kdbench_tasks():
    return {{"remote": Remote}}
'''


@pytest.fixture
def address() -> Iterator[str]:
    """A server on this machine that answers everything with the same few bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"not what was asked for")

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/remote.bin"
        server.shutdown()
        thread.join()


@pytest.fixture
def remote(
    given: Path, tmp_path: Path, address: str, unharmed: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    """A run that needs a download."""
    sha256 = hashlib.sha256(b"what was asked for").hexdigest()
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "remote.py").write_text(PLUGIN.format(sha256=sha256, url=address), encoding="utf-8")
    suite = tmp_path / "remote.yaml"
    text = (unharmed / "tiny.yaml").read_text(encoding="utf-8").replace("digits[", "remote[")
    suite.write_text(text, encoding="utf-8")
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(folder))
    return ("run", str(suite), "--out", str(tmp_path / "out"))


def test_a_corrupted_download(
    kdbench: Run, remote: tuple[str, ...], given: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    status, _, said = kdbench(*remote)
    assert status == 2
    assert "has another file: its sha256 is" in said
    assert not [path for path in (given.parent / "cache").rglob("*") if path.suffix != ".lock" and path.is_file()]
    assert not (given.parent / "out").exists()
    told("a corrupted download", "another content under the address", said[said.index("error:") :])


def test_no_network(
    kdbench: Run,
    remote: tuple[str, ...],
    finished: Path,
    suite: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
) -> None:
    """What needs none does not ask for it; what needs it says so."""

    def unreachable(*_: Any) -> None:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, unreachable, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    (next((finished / "tiny@1.0" / "trials").iterdir()) / "record.json").unlink()
    status, _, said = kdbench("run", str(suite), "--out", str(finished))
    assert status == 0, said
    assert "Network" not in said
    status, _, said = kdbench(*remote)
    assert status == 2
    assert "Network is unreachable" in said
    told("no network", "ENETUNREACH from every socket", said)
