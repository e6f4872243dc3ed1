"""MLflow's server down, failing, slow or gone midway: no trial is lost or late, and `kdbench sync` makes it whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kdbench.cli import tracking_process
from kdbench.cli.tracking_process import TrackingProcess
from kdbench.store import mlflow_client
from kdbench.store.mlflow_client import default_tracking_uri
from kdbench.store.mlflow_server import start_server
from kdbench.training.observer import Observer

Run = Callable[..., tuple[int, str, str]]
Told = Callable[[str, str, str], None]
Results = Callable[[Path], dict[str, Any]]


@contextmanager
def fake_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server on this machine that treats every request alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET  # noqa: N815 (http.server's name)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _failing(request: BaseHTTPRequestHandler) -> None:
    request.send_response(500)
    request.end_headers()


def _slow(request: BaseHTTPRequestHandler) -> None:
    time.sleep(5)


def _nonsense(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"<html>Please log in</html>")


ANSWERS = {"answers 500": _failing, "answers after 5 s": _slow, "is another server": _nonsense}


@pytest.mark.parametrize("how", ANSWERS)
def test_a_server_that_is_of_no_use(
    kdbench: Run,
    finished: Path,
    suite: Path,
    unharmed: Path,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
    how: str,
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setitem(mlflow_client._BOUNDED, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with fake_server(ANSWERS[how]) as address:
        uri = f"http://ann:s3cret@{address}"
        status, printed, said = kdbench("run", str(suite), "--out", str(finished), "--tracking-uri", uri)
        synced = kdbench("sync", "--out", str(finished), "--tracking-uri", uri)
    assert status == 0
    assert "Verdict" in printed
    assert "was not updated" in said
    assert "nothing is lost; `kdbench sync" in said
    assert synced[0] == 2
    assert "s3cret" not in said + synced[2]
    assert results(finished) == results(unharmed)
    told(f"MLflow's server {how}", "an HTTP server on 127.0.0.1", _note(said))


def _note(said: str) -> str:
    """What a run says of MLflow, in short."""
    line = next(line for line in said.splitlines() if "was not updated" in line)
    return "MLflow was not updated: " + line.rpartition(" cannot be used: ")[2]


def _postgres() -> str | None:
    """Why there is no PostgreSQL to be started here; None where there is."""
    if find_spec("psycopg2") is None:
        return "psycopg2 is not installed"
    return None if _program("initdb") else "PostgreSQL is not installed"


def _program(name: str) -> str | None:
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URI of a fresh PostgreSQL server, reached through a socket in its own folder."""
    if reason := _postgres():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="kdbench-postgres-"))
    account: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL}
    if os.geteuid() == 0:  # as whom PostgreSQL refuses to run
        shutil.chown(folder, "nobody")
        account["user"] = "nobody"
    control = [str(_program("pg_ctl")), "-D", str(folder / "data"), "-w", "-s"]
    try:
        initialise = [str(_program("initdb")), "-D", str(folder / "data"), "-U", "kdbench", "-A", "trust", "-N"]
        subprocess.run(initialise, **account)
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        subprocess.run([*control, "-l", str(folder / "log"), "-o", options, "start"], **account)
        yield f"postgresql+psycopg2://kdbench:s3cret@/postgres?host={folder}"
        subprocess.run([*control, "-m", "immediate", "stop"], **account)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"])
def test_a_server_that_goes_midway(
    kdbench: Run,
    begun: Path,
    suite: Path,
    unharmed: Path,
    results: Results,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
    database: str,
) -> None:
    """Real servers: the first is killed while the run still trains, the second is synced with, twice."""
    if database == "PostgreSQL":
        backend = request.getfixturevalue("postgres")
    elif not _postgres():
        pytest.skip("PostgreSQL is here, and the same is tried with it")
    else:
        backend = default_tracking_uri(tmp_path / "server")
    monkeypatch.setattr(tracking_process, "_AFTER", 0.0)
    root = begun if database == "PostgreSQL" else tmp_path / "server"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    finishing = TrackingProcess.finishing

    def gone(self: TrackingProcess, observer: Observer) -> AbstractContextManager[None]:
        end = time.monotonic() + 120
        while not list(root.rglob("report.html")) and time.monotonic() < end:
            time.sleep(0.05)
        server.close()
        return finishing(self, observer)

    with start_server(backend, port=0, out=begun) as server, monkeypatch.context() as patch:
        patch.setattr(TrackingProcess, "finishing", gone)
        status, _, said = kdbench("run", str(suite), "--out", str(begun), "--tracking-uri", server.url)
    assert status == 0, said
    assert "was not updated" in said
    assert "s3cret" not in said
    assert results(begun) == results(unharmed)
    with start_server(backend, server.port, out=begun) as server:
        first, second = (kdbench("sync", "--out", str(begun), "--tracking-uri", server.url) for _ in range(2))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "0 runs created, 0 updated" in second[1]
    assert list(elsewhere.iterdir()) == [], "nothing lies where the command was given"
    assert list((root / "mlartifacts").rglob("report.html"))
    told(f"MLflow's server ({database}) goes midway", "killed after the first sync; started again", _note(said))
    told(f"then `kdbench sync`, twice ({database})", "a second server on the same database", second[1])
