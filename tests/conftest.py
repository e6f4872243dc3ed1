"""What several test files share: a machine-independent set-up, and tiny suites on embedded data."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kdbench import torchvision_ops
from kdbench.training.observer import Observer

torchvision_ops.ensure()

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a shell that runs the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what they start inherits it, and must hear Ctrl-C

TINY = """
suite: tiny@1.0
title: Tiny
tasks: [{tasks}]
pairs:
  - teacher: [{teachers}]
    student: {student}
methods: [{methods}]
controls: [{controls}]
add_controls: {add_controls}
seeds: {seeds}
recipe:
  epochs: {epochs}
  batch_size: 32
  learning_rate: 0.05
{recipe}
"""
DEFAULTS = {
    "tasks": "'digits[train_examples=200]'",
    "teachers": "'cnn[width=0.5]', 'cnn[width=0.5]'",
    "student": "'cnn[width=0.25]'",
    "methods": "kd",
    "controls": "scratch",
    "add_controls": "false",  # so that a test runs what it names
    "seeds": "1",
    "epochs": "2",
    "recipe": "",
}


@dataclass
class Notes(Observer):
    """Keeps what is said."""

    said: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="session")
def suite_text() -> Callable[..., str]:
    """The text of a suite that trains in seconds; keyword arguments replace parts of it."""
    return lambda **changes: TINY.format(**{**DEFAULTS, **changes})


@pytest.fixture
def tiny_suite(tmp_path: Path, suite_text: Callable[..., str]) -> Callable[..., Path]:
    """Writes that suite to a file."""

    def write(file_name: str = "tiny.yaml", **changes: str) -> Path:
        path = tmp_path / file_name
        path.write_text(suite_text(**changes), encoding="utf-8")
        return path

    return write


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only search folder besides the cache, both in the environment."""
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setenv("KDBENCH_DATA", str(folder))
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def kdbench(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs a command in this process; its status, output and messages."""

    from kdbench.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdbench", *arguments])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    usual = gc.get_threshold()
    yield run
    gc.set_threshold(*usual)
