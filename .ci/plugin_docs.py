"""What the documentation shows of the built-in plugins and suites: a table each."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from class_docs import first_sentence

from kdbench.analysis.tables import pipes
from kdbench.discovery import Selection, candidates
from kdbench.method import Needs
from kdbench.plugins import Kind, Registry, collect
from kdbench.spec import Spec

_OPTIONAL = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


@cache
def registry() -> Registry:
    """The built-in plugins, whatever else is installed here."""
    return collect(candidates(Selection(only=frozenset())))


def methods() -> str:
    """Every method: what it does, whose it is, what it looks at."""
    rows = []
    for entry, cls, module in _listed("method"):
        needs = registry().create("method", Spec(entry.name)).needs
        about = (cls.family, first_sentence(cls), cls.paper, _looks_at(needs), _extras(module))
        rows.append((f"`{entry.name}`", *about))
    return pipes(("name", "family", "what it does", "paper", "looks at", "extra"), rows)


def tasks() -> str:
    """Every task: its modality, what it is, its parameters."""
    rows = []
    for entry, cls, module in _listed("task"):
        about = (cls.modality, first_sentence(cls), _parameters(entry), _extras(module))
        rows.append((f"`{entry.name}`", *about))
    return pipes(("name", "modality", "what it is", "parameters", "extra"), rows)


def architectures() -> str:
    """Every architecture: what it is, and its parameters."""
    rows = []
    for entry, cls, module in _listed("architecture"):
        rows.append((f"`{entry.name}`", first_sentence(cls), _parameters(entry), _extras(module)))
    return pipes(("name", "what it is", "parameters", "extra"), rows)


def suites() -> str:
    """Every suite that comes with kdbench."""
    from kdbench.suite_file import list_suites

    rows = []
    for suite in list_suites():
        counts = (str(suite.pairs), str(suite.methods))
        named = ", ".join(f"`{task}`" for task in suite.tasks)
        rows.append((f"[`{suite.id}`]({suite.path.name})", suite.title, named, *counts))
    return pipes(("suite", "title", "tasks", "pairs", "methods"), rows)


def _listed(kind: Kind) -> Iterator[tuple[Any, Any, str]]:
    """Entry, class and module of each plugin of a kind."""
    from kdbench.catalogue import catalogue

    for entry in catalogue(registry(), kind):
        plugin = registry().plugins[kind][entry.name]
        yield entry, plugin.load()[0], plugin.module


def _parameters(entry: Any) -> str:
    return ", ".join(f"`{parameter}`" for parameter in entry.parameters)


def _looks_at(needs: Needs) -> str:
    """The networks that a method asks for, and their taps."""
    students = "student" if needs.students == 1 else f"{needs.students} students"
    teachers = {0: "", 1: "teacher", "all": "all teachers"}.get(needs.teachers, f"{needs.teachers} teachers")
    looked_at = ((students, needs.student), (teachers, needs.teacher))
    return "; ".join(f"{who}: {', '.join(taps)}" if taps else who for who, taps in looked_at if who)


def _extras(module: str) -> str:
    """The fewest extras that bring what a module, or one near it, imports; alternatives are told."""
    brought = {
        extra: {re.split(r"\W", line)[0] for line in lines} for extra, lines in _OPTIONAL.items() if extra != "dev"
    }
    wanted = set().union(*brought.values()) & {name for file in _files(module) for name in _imports(file)}
    chosen = []
    while wanted:
        useful = {extra: wanted & libraries for extra, libraries in brought.items()}
        most = max(useful.values(), key=len)
        chosen.append(" or ".join(f"`{extra}`" for extra, libraries in useful.items() if libraries == most))
        wanted -= most
    return ", ".join(chosen)


def _imports(file: Path) -> Iterator[str]:
    """The libraries that a file imports, at its top or later, and the texts by which it may look for one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _files(module: str, above: frozenset[str] = frozenset()) -> set[Path]:
    """The file of a module and of those that it imports relatively, theirs included."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or module in above:
        return set()
    path, package = Path(spec.origin), module.rpartition(".")[0]
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    near = {importlib.util.resolve_name("." * node.level + (node.module or ""), package) for node in imports}
    return {path}.union(*(_files(name, above | {module}) for name in near))
