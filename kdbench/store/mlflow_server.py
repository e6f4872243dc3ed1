"""MLflow's UI as a child process; on this machine only, unless told otherwise."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from kdbench.errors import BadInput, StoreError
from kdbench.store.listening import LOCAL, Address, free_address
from kdbench.store.mlflow_client import SILENT, artifact_root, connected, is_server, masked

DEFAULT_PORT = 5000
_START_SECONDS = 120.0  # 7 s where nothing else runs
_STOP_SECONDS = 10.0


class Server:
    """A running `mlflow server`; leaving the context ends it."""

    def __init__(self, process: subprocess.Popen[bytes], address: Address, log: IO[bytes], tracking_uri: str) -> None:
        self._process, self._log, self._tracking_uri = process, log, tracking_uri
        self.address, self.port, self.url = address, address.port, address.url

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self) -> None:
        """Returns when interrupted (Ctrl-C, or a polite request to end).

        Raises:
            StoreError: the server ended by itself; with its last words.
        """
        with _termination_interrupts():
            try:
                self._process.wait()
            except KeyboardInterrupt:
                return
        raise self._failure("ended")

    def close(self) -> None:
        """Ends the server and the workers that it started, and returns when the port is free; may be called twice."""
        if self._log.closed:
            return
        deadline = time.monotonic() + _STOP_SECONDS
        _signal(self._process, signal.SIGTERM)
        while time.monotonic() < deadline and (self._process.poll() is None or self._listens()):
            time.sleep(0.05)
        _signal(self._process, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(self.address.reached, timeout=1):
            return True
        return False

    def _await_answer(self) -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._failure("did not start")
            try:
                with direct.open(f"{self.address.url_here}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise self._failure(f"did not answer within {_START_SECONDS:.0f} s")

    def _failure(self, what: str) -> StoreError:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return StoreError(f"the MLflow server {what}", hint=masked("\n".join(lines[-5:]), self._tracking_uri) or None)


def start_server(tracking_uri: str, port: int = DEFAULT_PORT, host: str = LOCAL, out: Path = Path()) -> Server:
    """Starts MLflow's UI and returns once it answers; port 0 takes any free one.

    `out`: the folder of all runs, where the artifacts of a database that is no file go.

    Raises:
        BadInput: the port is busy or none, the host no address of this machine, or the URI is already a server's.
        StoreError: the database cannot be used, or the server does not start.
    """
    if is_server(tracking_uri):
        raise BadInput(f"{masked(tracking_uri)} is a server already", hint="open it in a browser")
    address = free_address(host, port)
    with connected(tracking_uri) as client:
        client.search_experiments(max_results=1)  # creates a fresh database before several processes touch it
    command = [sys.executable, "-m", "mlflow", "server", "--host", str(address.number), "--port", str(address.port)]
    command += ["--workers", "1", "--allowed-hosts", ",".join(address.names)]
    command += ["--cors-allowed-origins", ",".join(f"http://{name}" for name in address.names)]
    command += ["--artifacts-destination", str(artifact_root(tracking_uri, out))]
    environment = {
        **os.environ,
        **SILENT,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        # Not on the command line, where everybody on the machine could read its password.
        "MLFLOW_BACKEND_STORE_URI": tracking_uri,
    }
    log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the server)
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    server = Server(process, address, log, tracking_uri)
    try:
        with _termination_interrupts():
            server._await_answer()
    except BaseException:
        server.close()
        raise
    return server


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the child's whole group, which is its own: MLflow starts workers."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """A closed terminal or a polite kill ends the server too, which would otherwise outlive its parent."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    except ValueError:  # only the main thread may set handlers
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
