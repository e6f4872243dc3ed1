"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shlex
import sys
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.core import TyperGroup

from kdbench.plugins import discover
from kdbench.suite_file import load_suite, parse_suite
from kdbench.testing import check_method

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("kdbench ")]


def test_the_method_plugin_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = blocks("python")
    module = ModuleType("kdbench_mimic")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "README.md", "exec"), module.__dict__)
    check_method(module.kdbench_methods()["mimic"]())


def test_the_suite_is_one() -> None:
    (source,) = blocks("yaml")
    suite = parse_suite(source)
    registry = discover()
    for spec in (*suite.controls, *suite.methods):
        registry.create("method", spec)
    assert suite.pairs[0].student == "torchvision:mobilenet_v3_small"


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_and_their_options_exist(line: str) -> None:
    from kdbench.cli.app import app

    _, *words = shlex.split(line, comments=True)
    command = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        name, *words = words
        command = command.commands[name]
    command.make_context(line, words)  # parses, and runs nothing


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z-]+)\b(?! )", README)) | {"quickstart", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_links_lead_somewhere() -> None:
    headings = {re.sub(r"\W+", "-", heading.lower()) for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert any(link.endswith(".svg") for link in links)
    dead = [link for link in links if not (link[1:] in headings if link[0] == "#" else (ROOT / link).exists())]
    assert not dead


def test_the_picture_shows_what_the_text_says_of_it() -> None:
    """A new version of the suite needs a new picture, and a new picture new words."""
    (path,) = re.findall(r"\]\((\S+\.svg)\)", README)
    drawing = (ROOT / path).read_text(encoding="utf-8")
    assert "url(" not in drawing.replace("url(#", "")  # nothing is fetched when it is looked at
    drawn = unescape(re.sub(r"<[^>]*>", " ", drawing)).replace("\xa0", " ")
    assert load_suite("quickstart").id in drawn
    teacher, scratch = (float(re.search(rf" {row}\s+(\d+\.\d+) ±", drawn)[1]) for row in ("teacher", "scratch"))
    said = " ".join(README.split())
    assert f"the teacher is right on {teacher:.1f} % of the test images, the student alone on {scratch:.1f} %" in said
    assert f"The teacher is {teacher - scratch:.1f} points better than the student alone" in said
