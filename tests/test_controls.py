"""The controls on the real road: who they learn from, and what they must come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONTROLS = "scratch, independent_pair, shuffled_teacher, class_mean_teacher, untrained_teacher, deep_supervision"


@pytest.fixture
def records(kdbench: Callable[..., Any], tiny_suite: Callable[..., Path], tmp_path: Path) -> dict[str, dict]:
    """The records of a run of kd and every control, by method."""
    suite = tiny_suite(controls=CONTROLS, methods="kd")
    status, _, said = kdbench("run", str(suite), "--out", str(tmp_path))
    assert status == 0, said
    lines = kdbench("records", "--out", str(tmp_path), "--json")[1].splitlines()
    return {record["method"]: record for record in map(json.loads, lines)}


def test_controls_run_and_mean_what_they_say(records: dict[str, dict], tmp_path: Path) -> None:
    assert {record["status"] for record in records.values()} == {"done"}
    metrics = {method: record["metrics"] for method, record in records.items()}
    # the pair's first student sees what a student alone sees, and nothing else
    assert metrics["independent_pair"]["accuracy"] == metrics["scratch"]["accuracy"]
    assert metrics["independent_pair"]["nll"] == metrics["scratch"]["nll"]
    # the placebo's teacher is the pair's, before its training: it cost nothing and knows nothing
    assert metrics["untrained_teacher"]["own_teacher_accuracy"] < metrics["kd"]["own_teacher_accuracy"]
    assert metrics["untrained_teacher"]["teacher_accuracy"] == metrics["kd"]["own_teacher_accuracy"]
    assert metrics["untrained_teacher"]["training_flops"] == metrics["kd"]["training_flops"]
    untrained = [
        record
        for record in (json.loads(path.read_text()) for path in tmp_path.glob("teachers/*/record.json"))
        if not record["curves"]
    ]
    assert [record["metrics"]["training_flops"] for record in untrained] == [0.0]
