"""`kdbench check`: methods that keep the contract, and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    assert "2 of 2 methods keep the contract" in said


def test_one_that_breaks_it_is_named_with_the_reason(kdbench: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY, encoding="utf-8")
    status, said, _ = kdbench("--plugin-dir", str(tmp_path), "check", "greedy", "scratch")
    assert status == 1
    assert "FAIL  greedy" in said
    assert "the teacher's logits must not be modified" in " ".join(said.split())
    assert "1 of 2 methods keep the contract" in said


def test_a_name_that_nobody_bears(kdbench: Callable[..., Any]) -> None:
    status, _, said = kdbench("check", "kdd")
    assert status == 2
    assert "did you mean 'kd'" in said
