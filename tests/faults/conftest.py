"""A small real run, its unharmed results, and the matrix of faults: `pytest tests/faults` prints it at its end."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kdbench.cli.tracking import Tracker
from kdbench.files import SUMS
from kdbench.measuring import measure
from kdbench.measuring.record import Record
from kdbench.store.mlflow_client import connected, default_tracking_uri

SUITE = {
    "tasks": "'digits[train_examples=120]'",
    "teachers": "'cnn[width=0.25]'",
    "student": "'cnn[width=0.125]'",
    "epochs": "2",
    "recipe": "  speedups: [stored_answers]",
}
COLUMNS = ("fault", "injected how", "times", "lost", "what was said")

Results = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="session")
def text(suite_text: Callable[..., str]) -> str:
    """Two trials on one teacher, whose answers are stored: seconds of training."""
    return suite_text(**SUITE)


@pytest.fixture
def suite(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves MLflow out: most faults are the store's."""
    monkeypatch.setattr(Tracker, "sync", lambda *_, **__: None)


@pytest.fixture(scope="session", autouse=True)
def _hasty_stopwatch() -> Iterator[None]:
    """Latencies are measured for a fixed time, which is most of what such small trials take, and no result here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "deployed_speed", partial(measure.deployed_speed, min_run_time=0.001))
        yield


@pytest.fixture(scope="session")
def unharmed(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    """The folder of a run that nothing happened to, with an empty MLflow database; to be copied, never written."""
    from kdbench.cli import main

    folder = tmp_path_factory.mktemp("unharmed")
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "sync", lambda *_, **__: None)
        patch.setattr(sys, "argv", ["kdbench", "run", str(folder / "tiny.yaml"), "--out", str(folder)])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    with connected(default_tracking_uri(folder)) as client:
        client.search_experiments(max_results=1)
    return folder


@pytest.fixture
def begun(tmp_path: Path, unharmed: Path) -> Path:
    """A folder for runs in which the teacher is trained already."""
    out = tmp_path / "out"
    return Path(shutil.copytree(unharmed, out, ignore=shutil.ignore_patterns("tiny@1.0")))


@pytest.fixture
def finished(tmp_path: Path, unharmed: Path) -> Path:
    """A copy of the unharmed run's folder."""
    return Path(shutil.copytree(unharmed, tmp_path / "out"))


@pytest.fixture(scope="session")
def results() -> Callable[[Path], Results]:
    """Every bit that must not depend on what happened, of all trials and teachers below a folder, by fingerprint."""
    return _results


def _results(out: Path) -> Results:
    found = {}
    for path in sorted(out.rglob("record.json")):
        record = Record.model_validate_json(path.read_bytes())
        tensors = [
            hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
            for name in ("student.safetensors", "predictions.safetensors")
            if (path.parent / name).exists()
        ]
        assert (path.parent / SUMS).exists()
        found[path.parent.name] = (record.status, record.metrics, record.curves, tensors)
    return found


@pytest.fixture
def told(record_property: Callable[[str, object], None]) -> Callable[[str, str, str], None]:
    """Adds a row to the matrix: the fault, how it was injected, and what a person read. That nothing was lost is for
    the test to assert before."""

    def add(fault: str, injected: str, said: str) -> None:
        record_property("fault", (fault, injected, _first_line(said)))

    return add


def _first_line(said: str) -> str:
    """Without the folders of this machine."""
    line = next((line.strip() for line in said.splitlines() if line.strip()), "")
    short = re.sub(r"(?<![\w.])/[^:;,'\"]*/", "…/", line.removeprefix("error: "))
    return short if len(short) <= 160 else short[:159] + "…"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not all("faults" in argument for argument in config.args):
        return
    passed = terminalreporter.getreports("passed")
    rows = [tuple(value) for report in passed for name, value in report.user_properties if name == "fault"]
    times = Counter((fault, injected) for fault, injected, _ in rows)
    said = {(fault, injected): message for fault, injected, message in rows}
    lines = [
        (fault, injected, str(times[fault, injected]), "nothing", message)
        for (fault, injected), message in said.items()
    ]
    for line in (COLUMNS, ["---"] * len(COLUMNS), *lines):
        terminalreporter.write_line("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")
