"""What `kdbench list` shows of a plugin, read from its source without importing it, so that listing stays fast."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdbench.plugins import Kind, Plugin, Registry


@dataclass(frozen=True)
class Entry:
    """One line of a listing. `parameters` are written as in the source: `temperature: Positive = 4.0`."""

    name: str
    kind: Kind
    summary: str
    family: str
    paper: str
    parameters: tuple[str, ...]
    distribution: str
    version: str

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON can hold it."""
        return asdict(self)


def catalogue(registry: Registry, kind: Kind) -> list[Entry]:
    """An entry for every plugin of `kind`, in the order of registration."""
    return [_entry(plugin) for plugin in registry.plugins[kind].values()]


def _entry(plugin: Plugin) -> Entry:
    definition = _class_definition(plugin)
    constants = _constants(definition) if definition else {}
    return Entry(
        name=plugin.name,
        kind=plugin.kind,
        summary=_summary(definition),
        family=constants.get("family", ""),
        paper=constants.get("paper", ""),
        parameters=tuple(_parameters(definition)) if definition else (),
        distribution=plugin.origin.distribution,
        version=plugin.origin.version,
    )


def _class_definition(plugin: Plugin) -> ast.ClassDef | None:
    source = _source_file(plugin)
    if source is None:
        return None
    name = (
        plugin.target.__name__ if isinstance(plugin.target, type) else plugin.target.partition(":")[2].partition("[")[0]
    )
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def _source_file(plugin: Plugin) -> Path | None:
    if isinstance(plugin.target, type):
        return Path(inspect.getfile(plugin.target))
    try:
        found = importlib.util.find_spec(plugin.module)
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def _summary(definition: ast.ClassDef | None) -> str:
    docstring = ast.get_docstring(definition) if definition else None
    return docstring.splitlines()[0] if docstring else ""


def _constants(definition: ast.ClassDef) -> dict[str, str]:
    return {
        ast.unparse(node.target): str(node.value.value)
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)
    }


def _parameters(definition: ast.ClassDef) -> list[str]:
    fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return [ast.unparse(node) for node in fields if not ast.unparse(node.annotation).startswith("ClassVar")]
