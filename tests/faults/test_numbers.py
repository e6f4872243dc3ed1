"""Losses that are no numbers, or explode: the trial says so and leaves, the others are as if it had not been there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
Told = Callable[[str, str, str], None]

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from kdbench import Method
from kdbench.hookspecs import hookimpl


@dataclass(frozen=True)
class Faulty(Method):
    """Adds to the task's loss, half-way, what is no number or soon none."""

    family: ClassVar[str] = "response"

    def losses(self, step):
        logits = step.student["logits"]
        odd = {"nan": torch.nan, "inf": torch.inf, "exploding": 1e30}[self.how]
        return {"task": step.task_loss(logits), "odd": odd * logits.square().mean() * (step.progress > 0.5)}


class Nan(Faulty):
    how = "nan"


class Infinite(Faulty):
    how = "inf"


class Exploding(Faulty):
    how = "exploding"


@hookimpl
def kdbench_methods():
    return {"becomes_nan": Nan, "becomes_infinite": Infinite, "explodes": Exploding}
'''
CASES = {"becomes_nan": "nan in a loss", "becomes_infinite": "inf in a loss", "explodes": "an exploding loss"}


@pytest.mark.usefixtures("untracked")
def test_they_cost_their_own_trial_only(
    kdbench: Run, begun: Path, tmp_path: Path, unharmed: Path, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "faulty.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(folder))
    methods = [part for name in ("kd", *CASES) for part in ("--method", name)]
    status, printed, said = kdbench("run", str(unharmed / "tiny.yaml"), "--out", str(begun), *methods)
    assert status == 1, said
    assert "Verdict" in printed

    def found(out: Path) -> dict[str, dict[str, object]]:
        lines = kdbench("records", "--json", "--out", str(out))[1].splitlines()
        return {record["method"]: record for record in map(json.loads, lines)}

    here, sound = found(begun), found(unharmed)
    for name in ("kd", "scratch"):
        assert here[name]["metrics"] == sound[name]["metrics"]
    for name, fault in CASES.items():
        assert here[name]["status"] == "diverged"
        told(fault, "a method's loss", str(here[name]["reason"]))
