"""What the documentation shows of a class: its fields and functions, from its annotations and docstrings."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kdbench.analysis.tables import pipes
from kdbench.suite_fields import PluginName

WIDTH = 120
_ENTRY = re.compile(r"    (?P<names>\w+(?:, \w+)*): (?P<text>.*)")
_WORDS = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text"}
_LIMITS: dict[type, str] = {
    Gt: "above {.gt:.10g}",
    Ge: "at least {.ge:.10g}",
    Lt: "below {.lt:.10g}",
    Le: "at most {.le:.10g}",
    MinLen: "at least {.min_length}",
}


def prose(text: str) -> str:
    """A docstring's text on one line, with what Markdown would take for markup escaped outside of code."""
    pieces = " ".join(text.split()).split("`")
    return "`".join(piece if place % 2 else re.sub(r"([*<])", r"\\\1", piece) for place, piece in enumerate(pieces))


def first_sentence(cls: type) -> str:
    """Of its docstring."""
    paragraph = prose((inspect.getdoc(cls) or "").partition("\n\n")[0])
    return re.split(r"""(?<=[a-z0-9)\]`"]\.)\s+(?=[A-Z])""", paragraph)[0]


def fields(cls: type) -> str:
    """The attributes that its docstring lists, each with type and default."""
    lines = []
    for names, text in attributes(cls):
        declared = ", ".join(f"`{_declaration(cls, name)}`" for name in names)
        lines.append(_bullet(f"{declared}: {prose(text)}"))
    return "\n".join(lines)


def functions(cls: type) -> str:
    """The public methods and properties that it defines, each with its docstring."""
    lines = []
    for name, member in vars(cls).items():
        is_property = isinstance(member, property)
        function = member.fget if is_property else getattr(member, "__func__", member)
        if not inspect.isfunction(function) or name.startswith("_") or name != function.__name__:
            continue
        node = _parsed(function)
        assert isinstance(node, ast.FunctionDef)
        arguments = re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))
        signature = name if is_property else f"{name}({arguments})"
        if node.returns:
            signature += f" -> {ast.unparse(node.returns)}"
        lines.append(_bullet(f"`{signature}`: {prose(inspect.getdoc(function) or '')}"))
    return "\n".join(lines)


def keys(model: type[BaseModel]) -> str:
    """A table of a section of a suite file: what may stand there, what does where it is left out, what it means."""
    meanings = {name: text for names, text in attributes(model) for name in names}
    rows = []
    for name, field in model.model_fields.items():
        default = "*required*" if field.is_required() else _written(field.default)
        if name == "teacher_recipe" and field.is_required():
            default = "`recipe`"  # which a validator puts there
        rows.append((f"`{name}`", _allowed(field.annotation, field.metadata), default, prose(meanings[name])))
    return pipes(("key", "what it may be", "left out", "what it means"), rows)


def attributes(cls: type) -> Iterator[tuple[tuple[str, ...], str]]:
    """The entries of the docstring's section "Attributes": names, and what is said of them."""
    section = (inspect.getdoc(cls) or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
    entries: list[tuple[tuple[str, ...], list[str]]] = []
    for line in section.splitlines():
        if entry := _ENTRY.fullmatch(line):
            entries.append((tuple(entry["names"].split(", ")), [entry["text"]]))
        else:
            entries[-1][1].append(line)
    return ((names, " ".join(lines)) for names, lines in entries)


def _declaration(cls: type, name: str) -> str:
    """The line of the class body that declares an attribute; its name alone for a property."""
    node = _parsed(cls)
    assert isinstance(node, ast.ClassDef)
    declared = [each for each in node.body if isinstance(each, ast.AnnAssign) and ast.unparse(each.target) == name]
    return ast.unparse(declared[0]).replace("'", '"') if declared else name


def _parsed(code: Any) -> ast.stmt:
    return ast.parse(textwrap.dedent(inspect.getsource(code))).body[0]


def _bullet(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent="* ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _written(default: Any) -> str:
    """As a suite file says it."""
    if default in (None, "", ()):
        return "none"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type and its limits in words."""
    limits = [_LIMITS[type(limit)].format(limit) for limit in metadata if type(limit) in _LIMITS]
    return ", ".join([_kind(annotation, metadata), *limits])


def _kind(annotation: Any, metadata: Sequence[Any]) -> str:
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not type(None)]
    if origin is Annotated:
        return _allowed(parts[0], [*_flat(parts[1:]), *metadata])
    if origin in (Union, UnionType):
        return " or ".join(_allowed(part) for part in parts)
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        return f"list ({_allowed(parts[0])})"
    if origin is dict:
        return f"mapping ({_allowed(parts[1])})"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__.lower()
    is_plugin = annotation not in _WORDS or get_args(PluginName)[1] in metadata
    return "plugin" if is_plugin else _WORDS[annotation]


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for each in metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)
