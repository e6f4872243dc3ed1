"""A few of the inputs of `python -m benchmarks.fuzz`, which feeds 100,000."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import strategies as st

from kdbench.errors import BadInput


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`benchmarks.fuzz`, which is no part of the installed package."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent))
    return import_module("benchmarks.fuzz")


def test_no_traceback_no_hang_and_no_file_outside(fuzz: ModuleType) -> None:
    report = fuzz.measure(fuzz.Fuzzing(inputs=400))
    for name, tally in report.samples.items():
        assert (tally["faults"], tally["outside"]) == ({}, 0), name
    assert sum(tally["inputs"] for tally in report.samples.values()) >= 400
    assert sum(tally["refused"] for tally in report.samples.values()) > 100, "most inputs are wrong, not all"


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_libfuzzer_looks_for_inputs_too(fuzz: ModuleType) -> None:
    """With instrumented modules, in a process of its own."""
    report = fuzz.measure(fuzz.Fuzzing(engine="atheris", inputs=50, readers=("manifests",)))
    (tally,) = report.samples.values()
    assert (tally["inputs"], tally["faults"], tally["outside"]) == (50, {}, 0)
    assert tally["refused"] > 10


def test_an_engine_that_is_not_here_is_said(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "find_spec", lambda name: None)
    for engine in ("atheris", "afl"):
        with pytest.raises(BadInput, match=f"no engine '{engine}' here\nhypothesis or atheris; the latter comes with"):
            fuzz.measure(fuzz.Fuzzing(engine=engine))


def crash(value: Any, folder: Path) -> None:
    raise ZeroDivisionError


def stray(value: Any, folder: Path) -> None:
    (folder.parent / "stray").touch()


def sit(value: Any, folder: Path) -> None:
    while True:
        pass


def mute(value: Any, folder: Path) -> None:
    raise BadInput("")


@pytest.mark.parametrize(
    ("read", "fault"), [(crash, "ZeroDivisionError"), (sit, "Hung"), (mute, "BadInput"), (stray, None)]
)
def test_and_it_finds_each(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, read: Callable[[Any, Path], None], fault: str | None
) -> None:
    monkeypatch.setattr(fuzz, "HANG", 0.05)
    found = fuzz.tally(fuzz.Fuzzed(st.just(0), read, 1), 1, 0)
    assert found.outside == (read is stray)
    assert [said.partition(":")[0] for said in found.faults.values()] == ([fault] if fault else [])
