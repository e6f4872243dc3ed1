"""MLflow's UI as a child process, on this machine only."""

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
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import IO

from kdbench.errors import BadInput, StoreError
from kdbench.store.mlflow_client import SILENT, artifact_root, connected, is_server, masked

HOST = "127.0.0.1"
DEFAULT_PORT = 5000
_START_SECONDS = 120.0  # 7 s where nothing else runs
_STOP_SECONDS = 10.0


class Server:
    """A running `mlflow server`; leaving the context ends it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: IO[bytes], tracking_uri: str) -> None:
        self._process, self._log, self._tracking_uri = process, log, tracking_uri
        self.port = port
        self.url = f"http://{HOST}:{port}"

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
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def _await_answer(self) -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._failure("did not start")
            try:
                with direct.open(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise self._failure(f"did not answer within {_START_SECONDS:.0f} s")

    def _failure(self, what: str) -> StoreError:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return StoreError(f"the MLflow server {what}", hint=masked("\n".join(lines[-5:]), self._tracking_uri) or None)


def start_server(tracking_uri: str, port: int = DEFAULT_PORT) -> Server:
    """Starts MLflow's UI on 127.0.0.1 and returns once it answers; port 0 takes any free one.

    Raises:
        BadInput: the port is busy or none, or the URI is already a server's.
        StoreError: the database cannot be used, or the server does not start.
    """
    if is_server(tracking_uri):
        raise BadInput(f"{masked(tracking_uri)} is a server already", hint="open it in a browser")
    port = _free(port)
    with connected(tracking_uri) as client:
        client.search_experiments(max_results=1)  # creates a fresh database before several processes touch it
    artifacts = artifact_root(tracking_uri)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    # A page elsewhere that has its own name lead here (DNS rebinding) gets no answer.
    command += ["--allowed-hosts", f"{HOST}:{port},localhost:{port}"]
    command += ["--artifacts-destination", str(artifacts)] if artifacts else []
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
    server = Server(process, port, log, tracking_uri)
    try:
        with _termination_interrupts():
            server._await_answer()
    except BaseException:
        server.close()
        raise
    return server


def _free(port: int) -> int:
    try:
        with socket.socket() as probe:
            # As the server itself will: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        reason = "is busy" if isinstance(error, OSError) else "is none"
        if isinstance(error, PermissionError):
            reason = "needs privileges"
        raise BadInput(f"port {port} {reason}", hint="choose another one with --port, or --port 0 for any") from error


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
