"""`kdbench check`: methods that keep the contract, and one that does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdbench.testing import CHECKS
from kdbench.testing.check import GUIDE

GREEDY = '''
from dataclasses import dataclass
from typing import ClassVar

from kdbench import Method, Needs, hookimpl


@dataclass(frozen=True)
class Greedy(Method):
    """Writes on its teacher."""

    family: ClassVar[str] = "response"
    paper: ClassVar[str] = "Nobody 2026"

    @property
    def needs(self):
        return Needs()

    def losses(self, step):
        step.teacher["logits"].zero_()
        return {"task": step.task_loss(step.student["logits"])}


@hookimpl
def kdbench_methods():
    return {"greedy": Greedy}
'''


def test_methods_that_keep_the_contract(kdbench: Callable[..., Any]) -> None:
    status, said, _ = kdbench("check", "scratch", "kd[temperature=2]")
    assert status == 0
    assert re.search(r"^ok +kd\[temperature=2\] +\d+ ok", said, re.MULTILINE)
    assert "2 of 2 methods keep the contract" in said


def test_one_that_breaks_it_is_named_with_the_reason(kdbench: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY, encoding="utf-8")
    status, said, _ = kdbench("--plugin-dir", str(tmp_path), "check", "greedy", "scratch")
    assert status == 1
    said = " ".join(said.split())
    assert "FAIL greedy documented: its docstring must cite its paper" in said
    assert "; also " in said
    assert "teacher_untouched" in said
    assert "1 of 2 methods keep the contract" in said


def test_a_single_method_is_shown_check_by_check(
    kdbench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "greedy.py").write_text(GREEDY, encoding="utf-8")
    status, said, _ = kdbench("--plugin-dir", str(tmp_path), "check", "greedy")
    assert status == 1
    lines = said.splitlines()
    assert max(len(line) for line in lines if "https://" not in line) <= 80
    assert re.search(r"^ok +frozen_dataclass", said, re.MULTILINE)
    assert re.search(r"^skipped +temperature_scaling +it softens no answers", said, re.MULTILINE)
    assert re.search(r"^FAIL +teacher_untouched +progress 0: the teacher's logits", said, re.MULTILINE)
    assert f"teacher_untouched: {GUIDE}#teacher_untouched" in lines


def test_an_expected_failure_is_shown_with_its_reason(kdbench: Callable[..., Any]) -> None:
    status, said, _ = kdbench("check", "dist")
    assert status == 0
    assert re.search(r"^expected +temperature_scaling +the authors' T\^2", said, re.MULTILINE)


def test_expected_failures_that_are_no_checks_are_a_failure(kdbench: Callable[..., Any], tmp_path: Path) -> None:
    declared = GREEDY.replace(
        "    @property", '    expected_failed_checks: ClassVar = {"teacher": "so"}\n\n    @property'
    )
    (tmp_path / "greedy.py").write_text(declared, encoding="utf-8")
    status, said, _ = kdbench("--plugin-dir", str(tmp_path), "check", "greedy")
    assert status == 1
    assert "'teacher' is no check; see `kdbench check --list`" in " ".join(said.split())


def test_checks_are_listed_with_their_reasons(kdbench: Callable[..., Any]) -> None:
    status, said, _ = kdbench("check", "--list")
    assert status == 0
    said = " ".join(said.split())
    for check in CHECKS:
        assert f"{check.name} {check.reason}" in said
    assert GUIDE in said


def test_methods_side_by_side_as_markdown(kdbench: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY, encoding="utf-8")
    status, said, _ = kdbench("--plugin-dir", str(tmp_path), "check", "--markdown", "scratch", "greedy", "dist")
    assert status == 1
    assert said.startswith("| check | 1 | 2 | 3 |\n| --- | :-: | :-: | :-: |\n| frozen_dataclass | · | · | · |\n")
    assert "\n| teacher_untouched | · | **✗** | · |\n" in said
    assert "\n| temperature_scaling | – | – | (✗) |\n" in said
    assert "1 scratch, 2 greedy, 3 dist\n" in said


def test_a_name_that_nobody_bears(kdbench: Callable[..., Any]) -> None:
    status, _, said = kdbench("check", "kdd")
    assert status == 2
    assert "did you mean 'kd'" in said
