"""What `kdbench list` shows of a plugin, read from its source without importing it, so that listing stays fast."""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kdbench.plugins import Kind, Plugin, Registry
from kdbench.spec import Spec


@dataclass(frozen=True)
class Entry:
    """One line of a listing. `parameters` are written as in suites, `temperature=4.0`; `stages=two|joint` names
    the choices, the default first, and `path=...` is one that has no default."""

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
    definitions = _class_definitions(plugin)
    constants = {name: value for definition in definitions for name, value in _constants(definition).items()}
    return Entry(
        name=plugin.name,
        kind=plugin.kind,
        summary=_summary(definitions[-1] if definitions else None),
        family=constants.get("family", ""),
        paper=constants.get("paper", ""),
        parameters=tuple(_parameters(definitions, _presets(plugin))),
        distribution=plugin.origin.distribution,
        version=plugin.origin.version,
    )


def _class_definitions(plugin: Plugin) -> list[ast.ClassDef]:
    """The plugin's class, after those classes of its own package that it derives from."""
    if isinstance(plugin.target, type):
        return _definitions(plugin.target.__module__, plugin.target.__name__)
    return _definitions(plugin.module, Spec.parse(plugin.target.partition(":")[2]).name)


def _definitions(module: str, name: str) -> list[ast.ClassDef]:
    source = _source_file(module)
    tree = _parsed(source, source.stat().st_mtime_ns) if source else None
    if tree is None:
        return []
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    homes = dict.fromkeys(classes, module)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            package = importlib.util.resolve_name("." * node.level + (node.module or ""), module.rpartition(".")[0])
            homes |= {alias.asname or alias.name: package for alias in node.names}
    if name not in classes:
        return []
    bases = [ast.unparse(base) for base in classes[name].bases if ast.unparse(base) in homes]
    return [*(found for base in bases for found in _definitions(homes[base], base)), classes[name]]


@cache
def _parsed(source: Path, changed: int) -> ast.Module | None:
    """A file's syntax tree, once for all plugins that live in it; `changed`: when it was written."""
    try:
        return ast.parse(source.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):  # a broken plugin is listed without its summary, and fails when asked for
        return None


def _source_file(module: str) -> Path | None:
    try:
        found = importlib.util.find_spec(module)
    except (Exception, SystemExit):  # to look for a submodule imports the packages above it
        return None
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def _summary(definition: ast.ClassDef | None) -> str:
    """The first sentence of its docstring, be it on one line or on several."""
    docstring = ast.get_docstring(definition) if definition else None
    paragraph = " ".join((docstring or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\w[.:]) (?=[A-Z])", paragraph, maxsplit=1)[0]


def _constants(definition: ast.ClassDef) -> dict[str, str]:
    return {
        ast.unparse(node.target): str(node.value.value)
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)
    }


def _presets(plugin: Plugin) -> frozenset[str]:
    """The parameters that the plugin's name already fixes: `resnet8` is `CifarResNet[depth=8]`."""
    if isinstance(plugin.target, type):
        return frozenset()
    return frozenset(Spec.parse(plugin.target.partition(":")[2]).params)


def _parameters(definitions: list[ast.ClassDef], fixed: frozenset[str]) -> list[str]:
    body = [node for definition in definitions for node in definition.body if isinstance(node, ast.AnnAssign)]
    fields = {ast.unparse(node.target): node for node in body if "ClassVar" not in ast.unparse(node.annotation)}
    return [f"{name}={_value(node)}" for name, node in fields.items() if name not in fixed]


def _value(field: ast.AnnAssign) -> str:
    default = _plain(field.value) if field.value else "..."
    annotation = field.annotation
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return "|".join(dict.fromkeys([default, *map(_plain, choices)]))
    return default


def _plain(value: ast.expr) -> str:
    """A value as a suite writes it: texts without quotes, unless they need them to be seen."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value.isprintable() and value.value:
        return value.value
    return ast.unparse(value)
