"""Where the time went: spans nest, add up, and become a trace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdbench import profiling
from kdbench.profiling import Profile, profiled, span
from kdbench.report.time_spent import methods_table, phases_table


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """A clock that goes on only when it is told to."""
    now = [100.0]
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: now[0])

    def go(seconds: float) -> None:
        now[0] += seconds

    return go


def text(table: Any, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def filled(clock: Callable[[float], None], **options: Any) -> Profile:
    with profiled(Profile(**options)) as profile:
        for _ in range(2):
            with span("student", "kd"):
                clock(1)
                with span("teacher", "cnn"):
                    clock(3)
        with span("own loop", "data_free"):
            clock(0.5)
        clock(1.5)
    return profile


def test_a_phase_counts_its_own_seconds_only(clock: Callable[[float], None]) -> None:
    profile = filled(clock)
    found = {key: (spent.seconds, spent.entered) for key, spent in profile.spent.items()}
    assert found == {("student", "kd"): (2, 2), ("teacher", "cnn"): (6, 2), ("own loop", "data_free"): (0.5, 1)}
    assert profile.seconds == 10


def fail(clock: Callable[[float], None]) -> None:
    with span("student", "kd"):
        clock(1)
        raise ValueError("no")


def test_a_block_that_raises_is_counted_and_closed(clock: Callable[[float], None]) -> None:
    with profiled(Profile()) as profile:
        with pytest.raises(ValueError, match="no"):
            fail(clock)
        with span("data"):
            clock(2)
    assert profile.spent["student", "kd"].seconds == 1
    assert profile.spent["data", ""].seconds == 2


def test_without_a_profile_nothing_is_counted(clock: Callable[[float], None]) -> None:
    profile = filled(clock)
    with span("student", "kd"):
        clock(5)
    assert profile.spent["student", "kd"].seconds == 2


def test_what_an_accelerator_has_queued_is_waited_for(clock: Callable[[float], None]) -> None:
    with profiled(Profile(synchronize=lambda: clock(4))) as profile, span("student", "kd"):
        clock(1)
    assert profile.spent["student", "kd"].seconds == 5


def test_the_tables_add_up(clock: Callable[[float], None]) -> None:
    profile = filled(clock)
    lines = [line.split() for line in text(phases_table(profile)).splitlines()]
    assert ["teacher", "6.00", "60.0", "2"] in lines
    assert ["everything", "else", "1.50", "15.0"] in lines
    assert ["the", "whole", "run", "10.00", "100.0"] in lines
    methods = text(methods_table(profile))
    assert re.search(r"^kd +2\.00 .* 2\.00 *$", methods, re.MULTILINE)
    assert re.search(r"^data_free +0\.50 .* 0\.50 *$", methods, re.MULTILINE)
    assert "cnn" not in methods
    assert "…" not in methods


def test_a_trace_opens_where_traces_are_opened(clock: Callable[[float], None], tmp_path: Path) -> None:
    profile = filled(clock, traced=True)
    profile.write_trace(tmp_path / "new" / "trace.json")
    events = json.loads((tmp_path / "new" / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert [(event["name"], event["ts"], event["dur"]) for event in events] == [
        ("teacher cnn", 1e6, 3e6),
        ("student kd", 0, 4e6),
        ("teacher cnn", 5e6, 3e6),
        ("student kd", 4e6, 4e6),
        ("own loop data_free", 8e6, 0.5e6),
    ]
    assert {event["ph"] for event in events} == {"X"}


def test_a_trace_does_not_grow_without_end(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(profiling, "TRACED", 2)
    profile = filled(clock, traced=True)
    profile.write_trace(tmp_path / "trace.json")
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) == 2
    assert profile.untraced == 3
    assert profile.spent["student", "kd"].entered == 2


def test_a_run_says_where_its_time_went(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out, trace = tmp_path / "out", tmp_path / "trace.json"
    suite = str(tiny_suite(epochs="1"))
    status, said, _ = kdbench("run", suite, "--out", str(out), "--profile", "--trace", str(trace))
    assert status == 0
    for phase in ("data", "teacher", "student", "losses", "backward", "optimiser", "evaluation", "measuring", "store"):
        assert re.search(rf"^{phase} +\d+\.\d\d +\d+\.\d +\d", said, re.MULTILINE), phase
    assert re.search(r"^kd +\d", said, re.MULTILINE)
    assert max(map(len, said.partition("Where the time went")[2].splitlines())) <= 80
    names = {event["name"] for event in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]}
    assert {"data", "student kd", "student scratch", "backward kd"} <= names


def test_profiling_changes_no_number(
    kdbench: Callable[..., Any], tiny_suite: Callable[..., Path], tmp_path: Path
) -> None:
    suite, metrics = str(tiny_suite(epochs="1")), []
    for folder, options in (("plain", ()), ("profiled", ("--profile",))):
        kdbench("run", suite, "--out", str(tmp_path / folder), *options)
        _, said, _ = kdbench("records", "--json", "--out", str(tmp_path / folder))
        metrics.append([json.loads(line)["metrics"] for line in said.splitlines()])
    assert metrics[0] == metrics[1]
