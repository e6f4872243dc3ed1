"""A clock that is set back during a run changes no result, and orders nothing wrongly for good."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]
Told = Callable[[str, str, str], None]
Results = Callable[[Path], dict[str, Any]]

BACK = 1800.0  # seconds


def test_set_back_again_and_again(
    kdbench: Run,
    begun: Path,
    suite: Path,
    unharmed: Path,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
) -> None:
    real, calls = time.time, 0

    def jumping() -> float:
        nonlocal calls
        calls += 1
        return real() - BACK * calls

    command = ("run", str(suite), "--out", str(begun))
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", jumping)
        status, _, said = kdbench(*command)
    assert status == 0, said
    assert calls > 0
    assert results(begun) == results(unharmed)
    again = kdbench("sync", "--out", str(begun))
    assert again[0] == 0
    assert "0 runs created, 0 updated" in again[1]
    told("the clock jumps back", f"{BACK / 60:.0f} minutes at each of {calls} looks at it", again[1])
