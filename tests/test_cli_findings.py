"""`kdbench verdict --require`, `kdbench compare` and the claims, on made-up runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.measuring.record import Record
from kdbench.store.run_folder import Manifest, RunFolder, now

Kdbench = Callable[..., tuple[int, str, str]]
SCORES = {"scratch": (0.700, 0.702, 0.698), "kd": (0.750, 0.753, 0.747), "rkd": (0.700, 0.703, 0.699)}


def write(out: Path, name: str, suite: str = "quick@1.0", better: float = 0.0) -> None:
    """A finished run of two tasks; its kd is better than usual by `better`."""
    run = RunFolder.create(out, name)
    trials = {}
    for task in ("digits", "letters"):
        for method, scores in SCORES.items():
            for seed, score in enumerate(scores):
                key = f"{task}|big -> small|{method}|{seed}"
                own = score + better * (1 + seed / 10) if method == "kd" else score
                record = Record(
                    fingerprint=hashlib.sha256(f"{key}{own}{suite}".encode()).hexdigest(),
                    status="done",
                    suite=suite,
                    task=task,
                    pair="big -> small",
                    teachers=("big",),
                    student="small",
                    method=method,
                    params={},
                    family="control" if method == "scratch" else "response",
                    seed=seed,
                    primary="accuracy",
                    unit="share",
                    metrics={"accuracy": own, "teacher_accuracy": 0.76, "ece": 0.05 + seed / 100},
                    provenance={"data": task, "machine": "m"},
                )
                run.trial(record.fingerprint).save(record)
                trials[key] = record.fingerprint
    run.update(
        Manifest(name=name, suite=suite, suite_digest="", suite_source="", created=now(), updated=now(), trials=trials)
    )


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs a, b (the same suite) and other (a new major version of it)."""
    monkeypatch.setenv("COLUMNS", "100")
    write(tmp_path, "a")
    write(tmp_path, "b", better=0.005)
    write(tmp_path, "other", suite="quick@2.0")
    return tmp_path


def test_a_gate_before_deployment(kdbench: Kdbench, out: Path) -> None:
    status, said, _ = kdbench("verdict", "a", "--out", str(out), "--require", "kd:accuracy_drop<=0.015,works")
    assert status == 0
    assert "4 of 4 requirements are met." in said
    assert said.count("pass") == 4
    asked = ["--require", "kd:accuracy_drop<=0.015", "--require", "rkd:works"]
    status, said, _ = kdbench("verdict", "a", "--out", str(out), *asked)
    assert status == 1
    assert "2 of 4 requirements are met." in said
    assert said.count("FAIL") == 2
    assert kdbench("verdict", "a", "--out", str(out), *asked[:2], "--confident")[0] == 1


def test_a_gate_for_machines(kdbench: Kdbench, out: Path) -> None:
    status, said, _ = kdbench("verdict", "a", "--out", str(out), "--json", "--require", "kd:ece<0.01")
    written = json.loads(said)
    assert (status, written["passed"], len(written["checks"])) == (1, False, 2)
    assert math.isclose(written["checks"][0]["value"], 0.06)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--require", "kd"], "write METHOD:CONDITION"),
        (["--require", "kdd:works"], "did you mean 'kd'"),
        (["--require", "kd:acuracy<=1"], "did you mean 'accuracy'"),
        (["--confident"], "--confident says how to judge --require"),
    ],
)
def test_a_gate_that_cannot_be_read(kdbench: Kdbench, out: Path, arguments: list[str], expected: str) -> None:
    status, _, said = kdbench("verdict", "a", "--out", str(out), *arguments)
    assert status == 2
    assert expected in said


def test_the_verdict_has_the_claims(kdbench: Kdbench, out: Path) -> None:
    status, said, _ = kdbench("verdict", "a", "--out", str(out))
    assert status == 0
    assert "the student keeps the teacher's accuracy" in said
    assert "not tested by this suite" in said
    _, said, _ = kdbench("verdict", "a", "--out", str(out), "--json")
    answers = {each["claim"]: each["answer"] for each in json.loads(said)["claims"]}
    assert answers["it generalises better than training alone"] == "mixed"


def test_the_leaderboard_ranks_over_tasks(kdbench: Kdbench, out: Path) -> None:
    _, said, _ = kdbench("leaderboard", "a", "--out", str(out))
    assert "Over all tasks" in said
    assert "Tasks: digits: big -> small; letters: big -> small." in said
    assert "So few tasks cannot tell even the first from the last." in " ".join(said.split())


def test_compare(kdbench: Kdbench, out: Path) -> None:
    status, said, _ = kdbench("compare", "a", "b", "--out", str(out))
    assert status == 0
    (line, _) = [line for line in said.splitlines() if line.split()[:1] == ["kd"]]
    assert line.split()[3:6] == ["+0.55", "[+0.43,", "+0.67]"]  # 0.50, 0.55, 0.60: 4.302653 * 0.05 / sqrt(3)
    assert said.count("same trials") == 4
    _, said, _ = kdbench("compare", "a", "b", "--out", str(out), "--json")
    assert json.loads(said)["boards"][0]["changes"][0]["label"] == "kd"
    status, _, said = kdbench("compare", "a", "other", "--out", str(out))
    assert status == 2
    assert "quick changed its major version, 1.0 and 2.0" in said
    assert kdbench("compare", "a", "nowhere", "--out", str(out))[0] == 2
