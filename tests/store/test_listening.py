"""Where MLflow's server listens, whom it answers, and what a database that is no file leaves in which folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from kdbench.errors import BadInput
from kdbench.store.listening import free_address
from kdbench.store.mlflow_client import artifact_root, default_tracking_uri


def test_the_default_is_this_machine_alone() -> None:
    address = free_address("127.0.0.1", 0)
    assert address.is_local
    assert address.url == address.url_here == f"http://127.0.0.1:{address.port}"
    assert address.names == [f"127.0.0.1:{address.port}", f"localhost:{address.port}"]


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
def test_ipv6_too() -> None:
    try:
        address = free_address("::1", 0)
    except BadInput:
        pytest.skip("this machine has no ::1")
    assert address.is_local
    assert address.url == f"http://[::1]:{address.port}"
    assert address.reached == ("::1", address.port)


def test_all_addresses_are_reached_by_the_names_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "lab.example.org, lab:80")
    address = free_address("0.0.0.0", 0)
    assert not address.is_local
    assert address.reached == ("127.0.0.1", address.port)
    assert address.url == f"http://{socket.gethostname()}:{address.port}"
    assert {f"{socket.gethostname()}:{address.port}", "lab.example.org", "lab:80"} <= set(address.names)
    assert not any("*" in name for name in address.names)


@pytest.mark.parametrize("host", ["no such name", "host.invalid", "192.0.2.1", "x" * 300, "", "é" * 70])
def test_what_is_no_address_of_this_machine_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, *arguments: Any, **keywords: Any) -> Any:  # no name server is asked in a test
        if name == "192.0.2.1":
            return original(name, *arguments, **keywords)
        if name.isascii():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        raise UnicodeError("label too long")

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(BadInput, match="no address of this machine") as refused:
        free_address(host, 0)
    assert "0.0.0.0" in str(refused.value.hint)


def test_artifacts_belong_to_the_folder_of_all_runs(tmp_path: Path) -> None:
    """Unless a server has a place of its own; never to the folder in which a command is given."""
    out = tmp_path / "results"
    assert artifact_root(default_tracking_uri(out), tmp_path) == out / "mlartifacts"
    assert artifact_root("postgresql+psycopg2://ann@host/mlflow", out) == out / "mlartifacts"
    assert artifact_root("https://mlflow.example.org", out) is None


def test_the_command_warns_and_answers_no_stranger(tmp_path: Path) -> None:
    """A real server on all addresses of this machine."""
    command = [sys.executable, "-m", "kdbench", "ui", "--host", "0.0.0.0", "--out", str(tmp_path)]
    port = free_address("0.0.0.0", 0).port
    with subprocess.Popen(
        [*command, "--port", str(port)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            warning, link = process.stderr.readline(), process.stdout.readline()
            assert warning.startswith("warning: MLflow listens on 0.0.0.0. It asks nobody for a password: anyone who")
            assert link == f"leaderboard: http://{socket.gethostname()}:{port}/\n"
            assert _searched(port, socket.gethostname()) == 200
            assert _searched(port, "evil.example") == 403
            assert _searched(port, socket.gethostname(), origin="http://evil.example") == 403
        finally:
            process.terminate()


def _searched(port: int, name: str, origin: str | None = None) -> int:
    """The status of what MLflow's page asks for, opened under `name`."""
    headers = {"Host": f"{name}:{port}", "Origin": origin or f"http://{name}:{port}"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/search",
        json.dumps({"max_results": 1}).encode(),
        {**headers, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
