"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from kdbench.plugins import discover
from kdbench.suite_file import parse_suite
from kdbench.testing import check_method

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The README's one code block in that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return found


def test_the_method_plugin_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("kdbench_huber")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block("python"), "README.md", "exec"), module.__dict__)
    check_method(module.kdbench_methods()["huber"]())


def test_the_suite_is_one() -> None:
    suite = parse_suite(block("yaml"))
    registry = discover()
    for spec in (*suite.controls, *suite.methods):
        registry.create("method", spec)
    assert suite.pairs[0].student == "torchvision:mobilenet_v3_small"


def test_the_commands_exist() -> None:
    from kdbench.cli.app import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    shown = set(re.findall(r"^kdbench (\w+)", README, re.MULTILINE))
    assert shown
    assert shown <= known
