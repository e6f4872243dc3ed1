"""What the documentation shows works as it stands there, and nothing that its readers need is missing from it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch

import kdbench
import kdbench_plugins
from kdbench import DataFolders, DataSpec, Method, hookspecs, testing
from kdbench.analysis.board import Board
from kdbench.analysis.columns import columns
from kdbench.analysis.verdict import Label
from kdbench.execution.local import execute
from kdbench.measuring.record import Record
from kdbench.planner import make_plan
from kdbench.plugins import Registry, discover
from kdbench.recipe import Pair, Recipe
from kdbench.scaffold.naming import Names
from kdbench.scaffold.package import write_package
from kdbench.spec import Spec
from kdbench.store.run_folder import RunFolder
from kdbench.suite import Suite
from kdbench.suite_file import packaged_suites, parse_suite
from kdbench.training.observer import Observer

ROOT = Path(__file__).parent.parent
PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "plugins/README.md")}
PAGES |= {page: (ROOT / page).read_text(encoding="utf-8") for page in ("suites/README.md", "results/README.md")}
GUIDE, SUITES, RESULTS = PAGES["plugins/README.md"], PAGES["suites/README.md"], PAGES["results/README.md"]
TUTORIAL, LOOSE = "kdbench-logit-mse", "my_plugins"
_NAMED = re.compile(r"# (?P<path>[\w/]+\.py)\n")


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


PYTHON = blocks(GUIDE, "python")
FILES = {match["path"]: block for block in PYTHON if (match := _NAMED.match(block))}
SNIPPETS = [block for block in PYTHON if not _NAMED.match(block)]
YAML = [*blocks(SUITES, "yaml"), *blocks(GUIDE, "yaml")]
LINES = [line for page in PAGES.values() for block in blocks(page, "sh") for line in block.splitlines()]
COMMANDS = sorted({line for line in LINES if re.match(r"(\w+=\S* )*kdbench ", line)})


# What is shown works


def test_the_tutorial_makes_a_package_whose_tests_pass(tmp_path: Path) -> None:
    """As the reader would: the generated package, with the guide's files in their places, under pytest."""
    write_package(Names.of("method", "logit-mse"), tmp_path, "response")
    package = tmp_path / TUTORIAL
    written = [path for path in FILES if not path.startswith(LOOSE)]
    assert len(written) == 3
    for path in written:
        (package / path).write_text(FILES[path], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(package / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    ended = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.fixture
def loose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The plugins that this environment finds with those of the guide's `my_plugins/` among them."""
    folder = tmp_path / LOOSE
    folder.mkdir()
    for path, content in FILES.items():
        if path.startswith(f"{LOOSE}/"):
            (tmp_path / path).write_text(content, encoding="utf-8")
    monkeypatch.setenv("KDBENCH_PLUGIN_DIR", str(folder))
    return discover()


def of_the_guide(registry: Registry, kind: Any) -> list[str]:
    return [name for name, plugin in registry.plugins[kind].items() if plugin.origin.file]


def test_loose_methods_keep_the_contract(loose: Registry) -> None:
    assert not loose.broken
    names = of_the_guide(loose, "method")
    assert {"hellinger", "function_matching"} <= set(names)
    for name in names:
        testing.check_method(loose.create("method", Spec(name)))


def test_a_loose_architecture_begins_with_the_weights_it_is_given(loose: Registry, tmp_path: Path) -> None:
    (name,), spec = of_the_guide(loose, "architecture"), DataSpec((30, 1), classes=2, modality="sensor")
    architecture = loose.create("architecture", Spec(name, {"width": 4}))
    network = architecture.build(spec)
    taps = architecture.taps(network)
    assert {network.get_submodule(tap.module) for tap in taps.values()} <= set(network.modules())
    file = tmp_path / "mine.pt"
    torch.save(network.state_dict(), file)
    loaded = loose.create("architecture", Spec(name, {"width": 4, "weights": str(file)}))
    assert loaded.digest() != architecture.digest() == ""
    fresh = loaded.build(spec).state_dict()
    assert all(value.equal(fresh[key]) for key, value in network.state_dict().items())
    with pytest.raises(kdbench.BadInput, match="does not fit"):
        loose.create("architecture", Spec(name, {"width": 5, "weights": str(file)})).build(spec)


def test_the_suite_of_loose_plugins_runs(loose: Registry, tmp_path: Path) -> None:
    (text,) = (text for text in YAML if all(name in text for name in of_the_guide(loose, "task")))
    plan = make_plan(parse_suite(text).with_overrides(seeds=1), loose, DataFolders.from_environment())
    fresh = execute(plan, RunFolder(tmp_path / "run"), tmp_path, torch.device("cpu"), Observer())
    records = [record for records in fresh for record in records]
    assert {record.status for record in records} == {"done"}
    assert {record.primary for record in records} == {"balanced_accuracy"}


@pytest.mark.parametrize("source", SNIPPETS, ids=lambda source: source.strip().splitlines()[0])
def test_snippets_run(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("kdbench_snippet")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "plugins/README.md", "exec"), module.__dict__)
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, Method) and found.__module__ == module.__name__:
            testing.check_method(found())


@pytest.mark.parametrize("text", YAML, ids=lambda text: re.search(r"suite: (\S+)", text)[1])
def test_suites_can_be_planned(text: str, loose: Registry, tmp_path: Path, given: Path) -> None:
    from PIL import Image

    for split, name, number in ((s, n, i) for s in ("train", "test") for n in ("bolt", "nut") for i in range(8)):
        path = tmp_path / "parts" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (8 * number, 0, 0)).save(path)
    suite = parse_suite(text.replace("/data/parts", str(tmp_path / "parts")))
    plan = make_plan(suite, loose, DataFolders.from_environment())
    assert plan.cohorts
    assert not plan.skipped


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line: str) -> None:
    import typer

    from kdbench.cli.app import app
    from kdbench.cli.options import global_options_first

    words = shlex.split(line, comments=True)
    words = global_options_first(words[words.index("kdbench") + 1 :])
    command, context, name = typer.main.get_command(app), None, "kdbench"
    while hasattr(command, "commands"):
        context = command.make_context(name, list(words), parent=context)
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
    command.make_context(name, list(words), parent=context)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", PAGES[page]):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{target}#{anchor}"


def anchors(page: str) -> set[str]:
    """As GitHub makes them of headings."""
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


# Nothing is missing


def undocumented(names: Iterable[str], page: str) -> list[str]:
    """Those that no code on the page, between backticks, begins with."""
    return [name for name in names if not re.search(rf"`{re.escape(name)}(?![\w-])", page)]


def test_hooks_and_public_names_are_documented() -> None:
    marked = [name for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")]
    assert not undocumented(marked, GUIDE)
    assert not undocumented(kdbench.__all__, GUIDE)
    assert not undocumented(testing.__all__, GUIDE)
    assert not undocumented(["API_VERSION", "kdbench_api"], GUIDE)


PUBLIC = [getattr(kdbench, name) for name in kdbench.__all__]
CLASSES = [found for found in PUBLIC if isinstance(found, type) and dataclasses.is_dataclass(found)]


@pytest.mark.parametrize("cls", CLASSES)
def test_fields_and_functions_are_documented(cls: type) -> None:
    functions = [each for each, member in vars(cls).items() if inspect.isfunction(member) and member.__name__ == each]
    wanted = [each for each in (*inspect.get_annotations(cls), *functions) if not each.startswith("_")]
    assert not undocumented(wanted, GUIDE)


def test_every_kind_of_tap_is_documented() -> None:
    specs = {"cnn": DataSpec((1, 8, 8), 3), "bert": DataSpec((4,), 3, modality="nlp", vocabulary=9)}
    kinds = set()
    for name, spec in specs.items():
        architecture = discover().create("architecture", Spec(name))
        kinds |= {re.sub(r"\d+$", "<n>", tap) for tap in architecture.taps(architecture.build(spec))}
    assert len(kinds) > 5
    assert all(f"`{kind}`" in GUIDE for kind in kinds)


def test_every_check_has_its_section() -> None:
    assert {check.name for check in testing.CHECKS} <= anchors(GUIDE)
    assert all(check.link.endswith(f"plugins/README.md#{check.name}") for check in testing.CHECKS)


def test_every_plugin_is_listed() -> None:
    for hook in ("kdbench_methods", "kdbench_tasks", "kdbench_architectures"):
        assert not undocumented(getattr(kdbench_plugins, hook)(), GUIDE)


def test_every_key_of_a_suite_is_explained() -> None:
    for model in (Suite, Pair, Recipe):
        assert not undocumented(model.model_fields, SUITES)
    listed = [suite for suite in packaged_suites() if f"]({suite}.yaml)" in SUITES]
    assert listed == list(packaged_suites())


def test_every_column_verdict_and_field_of_a_record_is_explained() -> None:
    board = Board("t", "t", 1.0, "a -> b", "b", ("a",), "accuracy", True, "share", 0.01, (), None, "scratch", True, ())
    assert not undocumented([column.title for column in columns(board)], RESULTS)
    assert not undocumented(get_args(Label), RESULTS)
    assert not undocumented(Record.model_fields, RESULTS)


def test_every_command_is_shown(docs: ModuleType) -> None:
    shown = "\n".join(PAGES.values())
    assert [command for command in docs.commands() if f"Usage: kdbench {command} " not in shown] == []


# The generated parts


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    """`.ci/docs.py`."""
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        return importlib.import_module("docs")
    finally:
        sys.path.remove(str(ROOT / ".ci"))


def test_a_stale_page_is_named_and_renewed(
    docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "PAGES", ("page.md",))
    page = tmp_path / "page.md"
    page.write_text("# Ours\n\n<!-- generated: keys of pair -->\nold\n<!-- /generated -->\n\nours\n", encoding="utf-8")
    assert docs.main(["--check"]) == 1
    assert "page.md: stale" in capsys.readouterr().out
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    new = page.read_text(encoding="utf-8")
    assert new.startswith("# Ours\n\n<!-- generated: keys of pair -->\n| key |")
    assert new.endswith("<!-- /generated -->\n\nours\n")
    assert "| `student` | plugin | *required* |" in new
