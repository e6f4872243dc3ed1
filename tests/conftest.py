"""What several test files share: a machine-independent set-up, and tiny suites on embedded data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench import torchvision_ops

torchvision_ops.ensure()

TINY = """
suite: tiny@1.0
title: Tiny
tasks: [{tasks}]
pairs:
  - teacher: [{teachers}]
    student: {student}
methods: [{methods}]
controls: [{controls}]
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
    "seeds": "1",
    "epochs": "2",
    "recipe": "",
}


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
