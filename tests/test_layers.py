"""Imports run one way only: the house of kdbench, checked with `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "kdbench"

# Each room may import from its own floor and from those below it.
FLOORS = (
    {
        "errors",
        "files",
        "spec",
        "provenance",
        "torchvision_ops",
        "data",
        "archives",
        "downloads",
        "isolation",
        "interpreter",
        "profiling",
    },
    {
        "hyperparameters",
        "hookspecs",
        "losses",
        "metrics",
        "splits",
        "method",
        "own_loop",
        "task",
        "architecture",
        "augmentation",
        "yaml_source",
        "flops",
    },
    {
        "discovery",
        "plugins",
        "catalogue",
        "suite",
        "suite_fields",
        "suite_file",
        "recipe",
        "testing",
        "pytest_plugin",
        "scaffold",
    },
    {"plan"},
    {"controls", "networks"},
    {"planner"},
    {"training"},
    {"measuring"},
    {"store"},
    {"execution"},
    {"tuning"},
    {"analysis"},
    {"report"},
    {"cli", "__main__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SOURCES = sorted(path for path in CORE.rglob("*.py") if path != CORE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def imports(path: Path, *, at_top_only: bool = False) -> Iterator[str]:
    """The dotted names that a file imports; those under TYPE_CHECKING only teach mypy and do not count at the top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(CORE).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    assert room(path) in FLOOR, f"give the room '{room(path)}' a floor in FLOORS"
    upwards = [
        name for name in imports(path) if name.startswith("kdbench.") and FLOOR[name.split(".")[1]] > FLOOR[room(path)]
    ]
    assert not upwards, f"{path.name} imports from above: {upwards}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(CORE).as_posix())
def test_walls(path: Path) -> None:
    found = set(imports(path))
    roots = {name.partition(".")[0] for name in found}
    assert "kdbench_plugins" not in roots, "the core never imports a plugin"
    if room(path) != "store":
        assert "mlflow" not in roots, "only store/ knows mlflow"
    if room(path) in {"analysis", "report"}:
        assert "torch" not in roots, "analysis and report work on records, without torch"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(CORE).as_posix())
def test_only_the_command_line_prints(path: Path) -> None:
    if room(path) == "cli":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prints = [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert not prints, f"{path.name} prints in lines {prints}"


def test_plugins_know_only_the_public_names() -> None:
    allowed = {"kdbench", "kdbench.hookspecs"}
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        private = {name for name in imports(path) if name.startswith("kdbench") and name not in allowed}
        assert not private, f"{path.name} reaches into the core: {private}"


def test_the_core_names_no_method() -> None:
    from kdbench_plugins import kdbench_methods

    # "scratch" is the protocol's baseline, a constant of the suite schema and the analysis; "ensemble" is a family too
    names = set(kdbench_methods()) - {"scratch", "ensemble"}
    for path in SOURCES:
        strings = {
            node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)
        }
        assert not strings & names, f"{path.name} names {strings & names}"
