"""A few of the trials of `python -m benchmarks.soak`, which runs two thousand, and what it makes of them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from kdbench.store.run_folder import RunFolder


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`benchmarks.soak`, which is no part of the installed package."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent))
    return import_module("benchmarks.soak")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc to look at")
def test_it_looks_while_it_trains(soak: ModuleType, tmp_path: Path) -> None:
    plan = soak.planned(4, tmp_path)
    looks = soak.train(plan, RunFolder.create(tmp_path, "soak"), tmp_path, 2)
    assert [look.trials for look in looks] == [2, 4]
    assert all(look.memory > 2**20 and look.files > 2 and look.threads >= 1 for look in looks)


@pytest.mark.parametrize(("leak", "verdict"), [(0, "met"), (1, "MISSED")])
def test_a_leak_is_seen(soak: ModuleType, leak: int, verdict: str) -> None:
    looks = [soak.Look(n, float(n), 10**9 + leak * n * 10**6, 10 + leak * n, 2 + leak * n) for n in range(50, 1050, 50)]
    uses = {"leaderboard": 0.1, "a page of 100 rows from the MLflow server": 0.1}
    found = {target.what: target.verdict for target in soak.targets(looks, uses)}
    for what in ("memory at the end, to that after a quarter", "open files more at the end", "threads more at the end"):
        assert found[what] == verdict
    assert found["time of a trial, late to early"] == "met"
