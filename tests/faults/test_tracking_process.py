"""The process that keeps MLflow up to date: what it shows, what is said of it, and that a run does not need it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdbench.cli import tracking_process
from kdbench.cli.tracking import Tracker
from kdbench.cli.tracking_process import TrackingProcess
from kdbench.interpreter import command
from kdbench.store.mlflow_client import connected, default_tracking_uri
from kdbench.store.run_folder import RunFolder

from ..conftest import Notes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_process, "_AFTER", 0.0)


def shown(tracking_uri: str) -> dict[str, tuple[Any, ...]]:
    """Every run in MLflow by its key: name, status, parameters, metrics."""
    with connected(tracking_uri) as client:
        experiments = [each.experiment_id for each in client.search_experiments()]
        runs = client.search_runs(experiments)
    return {
        run.data.tags["kdbench.key"]: (run.info.run_name, run.info.status, run.data.params, run.data.metrics)
        for run in runs
    }


def last_run(out: Path) -> RunFolder:
    return RunFolder.open("latest", out)


def test_it_shows_what_the_run_itself_would(
    kdbench: Run, begun: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracker, "sync", lambda *_, **__: pytest.fail("the run did not leave it to the process"))
    status, _, said = kdbench("run", str(suite), "--out", str(begun))
    assert status == 0, said
    assert "MLflow" not in said
    elsewhere = default_tracking_uri(tmp_path / "elsewhere")
    assert kdbench("sync", "--out", str(begun), "--tracking-uri", elsewhere)[0] == 0
    assert shown(default_tracking_uri(begun)) == shown(elsewhere)
    assert list((begun / "mlartifacts").rglob("report.html"))


@pytest.mark.parametrize("command", [[sys.executable, "-c", "raise SystemExit(3)"], ["no-such-program"]])
def test_without_it_the_run_writes_itself(finished: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_process, "command", lambda *_: command)
    uri, notes = default_tracking_uri(finished), Notes()
    with TrackingProcess(Tracker(last_run(finished), uri)) as tracking:
        tracking.news(notes)
        with tracking.finishing(notes):
            pass
    assert "report" in shown(uri)
    assert notes.said == []


def test_a_wrong_address_is_said_before_the_end_and_its_password_nowhere(finished: Path) -> None:
    uri, notes = "http://ann:s3cret@127.0.0.1:9", Notes()
    commands: set[bytes] = set()
    with TrackingProcess(Tracker(last_run(finished), uri)) as tracking:
        end = time.monotonic() + 120
        while not notes.said and time.monotonic() < end:
            commands |= set(_commands())
            tracking.news(notes)
            time.sleep(0.05)
        assert "cannot be used" in notes.said[0]
        with tracking.finishing(notes):
            pass
    assert "nothing is lost" in notes.said[-1]
    assert "s3cret" not in "".join(notes.said)
    assert not any(b"s3cret" in command for command in commands)
    if Path("/proc").is_dir():
        assert any(b"kdbench.cli.tracking_process" in command for command in commands)


def _commands() -> list[bytes]:
    """The command lines of this process's children, where the system shows them."""
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        for number in children.read_text().split():
            try:
                found.append(Path("/proc", number, "cmdline").read_bytes())
            except FileNotFoundError:
                continue  # it ended meanwhile
    return found


def test_it_ends_with_a_run_that_is_killed(finished: Path, tmp_path: Path) -> None:
    """Whose end it sees as the end of its input."""
    whose = [str(last_run(finished).path), default_tracking_uri(finished), str(tmp_path / "events")]
    done = subprocess.run(command("kdbench.cli.tracking_process"), input=json.dumps(whose) + "\nnews\n", text=True)
    assert done.returncode == 1
    assert "report" in shown(default_tracking_uri(finished)), "what was on disk"


def test_none_is_left_behind_by_a_run_that_breaks_off(finished: Path) -> None:
    tracking = TrackingProcess(Tracker(last_run(finished), "sqlite://"))

    def broken_off() -> None:
        with tracking:
            end = time.monotonic() + 60
            while not _commands() and time.monotonic() < end:
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert not any(b"tracking_process" in command for command in _commands())
    assert not tracking.folder.exists()
