"""MLflow's server as a child process: on this machine only, and gone when it is left."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbench.errors import BadInput, StoreError
from kdbench.store.mlflow_client import default_tracking_uri
from kdbench.store.mlflow_server import Server, _termination_interrupts, start_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with start_server(default_tracking_uri(tmp_path), port=0) as running:
        yield running


def test_a_server_answers_here_ends_when_left_and_tells_when_it_ends_by_itself(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/version", timeout=30) as answer:
        assert answer.status == 200
    _refuses_strangers(server)

    group = os.getpgid(server._process.pid)
    assert group == server._process.pid, "a group of its own, so that ending it ends its workers and nothing else"
    os.killpg(group, signal.SIGKILL)
    with pytest.raises(StoreError, match="the MLflow server ended"):
        server.wait()
    server.close()
    server.close()


def _refuses_strangers(server: Server) -> None:
    """Other addresses of this machine, and pages elsewhere whose own name was made to lead here (DNS rebinding)."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.port), timeout=10)
    api = f"{server.url}/api/2.0/mlflow/experiments/search?max_results=1"
    with urllib.request.urlopen(api, timeout=30) as answer:
        assert answer.status == 200
    for host in ("evil.example", f"evil.example:{server.port}", "192.168.0.1"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(api, headers={"Host": host}), timeout=30)


def test_leaving_frees_the_port(tmp_path: Path) -> None:
    with start_server(default_tracking_uri(tmp_path), port=0) as running:
        socket.create_connection(("127.0.0.1", running.port), timeout=10).close()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=10)


def test_a_database_that_is_none_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)

    with pytest.raises(StoreError, match="not a database"):
        start_server(default_tracking_uri(tmp_path), port=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_is_an_interruption_while_waiting(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), _termination_interrupts():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_busy_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(BadInput, match="is busy") as caught:
            start_server(default_tracking_uri(tmp_path), holder.getsockname()[1])
    assert "--port" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(BadInput, match=f"port {port} is none"):
        start_server(default_tracking_uri(tmp_path), port)


def test_a_server_elsewhere_is_not_served_again() -> None:
    with pytest.raises(BadInput, match="is a server already"):
        start_server("http://ann:s3cret@host:5000")
