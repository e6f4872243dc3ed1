"""YAML that remembers on which line every key was written, so that errors can say it.

The subset that a suite needs: one document, mappings with plain keys, lists and scalars of the YAML 1.2 core schema
(`1e-4` is a number, `yes` is text). Anchors, aliases and tags are refused, so a file cannot grow or run when read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from kdbench.errors import SuiteError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_MAX_DIGITS = 100

Key = tuple[str | int, ...]

# YAML 1.2, section 10.3.2 (core schema).
_PLAIN: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda text: float("nan")),
)

# What ruamel.yaml says in terms of its grammar, and what a person should do about it.
_ADVICE = (
    (r"found character '\t'", "replace the tab by spaces"),
    (
        "but got '['",
        'quote a name with brackets inside [ ] or { }: ["kd[temperature=2]"], or write one per line after "- "',
    ),
    ("mapping values are not allowed", "check the indentation, and quote text that contains ': '"),
    ("could not find expected ':'", "a key is written 'key: value'"),
    ("expected <block end>", "entries of one mapping or list begin in the same column"),
    ("cannot start any token", "quote text that begins with a special character"),
    ("unexpected end of stream", "a quote is not closed"),
    ("but got '<stream end>'", "a bracket is not closed"),
)


@dataclass(frozen=True)
class Source:
    """A parsed file: its name as the user gave it, its text, its content, and the line of every key and list item."""

    name: str
    text: str
    data: dict[str, Any]
    lines: Mapping[Key, int]

    def line(self, key: Key) -> int:
        """The line of `key`, or of the innermost section around it that was written; counted from 1."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def find(self, wanted: Callable[[Any], bool]) -> Key | None:
        """The first key, in the order of the file, whose value is `wanted`."""
        for key in sorted(self.lines, key=self.line):
            value: Any = self.data
            for part in key:
                value = value[part]
            if wanted(value):
                return key
        return None

    def at(self, key: Key, problem: str) -> str:
        """'FILE:LINE: KEY: PROBLEM'."""
        return _message(self.name, self.line(key), key, problem)


def read_yaml(path: Path) -> Source:
    """The content of the file at `path`.

    Raises:
        SuiteError: it cannot be opened, is larger than `MAX_BYTES`, is not UTF-8, or `parse_yaml` refuses it.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise SuiteError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise SuiteError(f"{path}: is a folder, not a suite file") from error
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MAX_BYTES:
        raise SuiteError(f"{path}: is larger than {MAX_BYTES // 1024} KiB, so it is hardly a suite file")
    try:
        return parse_yaml(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{path}:{line}: is not UTF-8 text", hint="save the file as UTF-8") from error


def parse_yaml(text: str, name: str) -> Source:
    """The content of `text`; `name` stands for the file in messages.

    Raises:
        SuiteError: not YAML, empty, no mapping, a key given twice, nested deeper than `MAX_DEPTH`, several documents,
            or an anchor, alias or tag. The message gives the line, and the key where there is one.
    """
    reader = _Reader(name)
    try:
        data = reader.document(YAML(typ="safe", pure=True).parse(text))
    except (
        YAMLError,
        ValueError,
        OverflowError,
        AssertionError,
    ) as error:  # the latter three: bad escapes and directives
        raise _syntax_error(name, text, error, reader) from error
    return Source(name, text, data, reader.lines)


def key_text(key: Key) -> str:
    """`('pairs', 0, 'student')` as people write it: `pairs[0].student`."""
    parts = (
        f"[{part}]" if isinstance(part, int) else "." + (part if re.fullmatch(r"[\w-]+", part) else repr(part[:60]))
        for part in key
    )
    return "".join(parts).removeprefix(".")


class _Reader:
    """Builds the content from parser events: unlike ruamel's composer, it can stop at a depth and keep the lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Key, int] = {}
        self.last: Key = ()

    def document(self, events: Iterator[Event]) -> dict[str, Any]:
        self.events = events
        next(events)  # the start of the stream
        if isinstance(next(events), StreamEndEvent):
            raise self._error(1, (), "the file is empty")
        root = next(events)
        data = self._node(root, ())
        if data is None:
            raise self._error(1, (), "the file is empty")
        if not isinstance(data, dict):
            raise self._error(_line(root), (), "the top level must be a mapping ('key: value' lines)")
        next(events)  # the end of the document
        if not isinstance(after := next(events), StreamEndEvent):
            raise self._error(_line(after), (), "a second document begins here ('---'); a suite file holds one")
        return data

    def _node(self, event: Event, key: Key) -> Any:
        self.lines[key] = self.lines.get(key, _line(event))
        self.last = key
        self._refuse_unsafe(event, key)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, key)
        if len(key) >= MAX_DEPTH:
            raise self._error(_line(event), key[:3], f"nested deeper than {MAX_DEPTH} levels")
        return self._mapping(key) if isinstance(event, MappingStartEvent) else self._sequence(key)

    def _mapping(self, key: Key) -> dict[str, Any]:
        content: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            self._refuse_unsafe(event, key)
            if not isinstance(event, ScalarEvent):
                raise self._error(_line(event), key, "a key must be a plain word")
            child = (*key, event.value)
            if child in self.lines:
                raise self._error(_line(event), child, f"given twice (first on line {self.lines[child]})")
            self.lines[child], self.last = _line(event), child
            content[event.value] = self._node(next(self.events), child)
        return content

    def _sequence(self, key: Key) -> list[Any]:
        content: list[Any] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            content.append(self._node(event, (*key, len(content))))
        return content

    def _scalar(self, event: ScalarEvent, key: Key) -> Any:
        text: str = event.value
        if event.style is not None:  # quoted or block text
            return text
        for pattern, convert in _PLAIN:
            if pattern.fullmatch(text):
                if len(text) > _MAX_DIGITS:
                    raise self._error(_line(event), key, f"a number of more than {_MAX_DIGITS} digits")
                return convert(text)
        return text

    def _refuse_unsafe(self, event: Event, key: Key) -> None:
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor is not None):
            raise self._error(_line(event), key, "anchors (&) and aliases (*) are refused here; write the value out")
        if getattr(event, "ctag", None) is not None:
            raise self._error(_line(event), key, "tags (!) are refused here; write the plain value")

    def _error(self, line: int, key: Key, problem: str) -> SuiteError:
        return SuiteError(_message(self.name, line, key, problem))


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _message(name: str, line: int, key: Key, problem: str) -> str:
    return f"{name}:{line}: {key_text(key)}: {problem}" if key else f"{name}:{line}: {problem}"


def _syntax_error(name: str, text: str, error: Exception, reader: _Reader) -> SuiteError:
    after = f" (after '{key_text(reader.last)}')" if reader.last else ""
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return SuiteError(f"{name}:{line}: not YAML: contains the control character {chr(error.character)!r}")
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return SuiteError(f"{name}:{reader.lines.get(reader.last, 1)}: not YAML: {error}{after}")
    line = error.problem_mark.line + 1
    if _tab_indents(text, line):
        hint = "YAML takes only spaces: replace the tab by spaces"
        return SuiteError(f"{name}:{line}: a tab is used for indentation{after}", hint=hint)
    problem = str(error.problem)
    begun = error.context_mark.line + 1 if error.context_mark is not None else line
    where = f", in what began on line {begun}" if begun != line else ""
    advice = next((advice for sign, advice in _ADVICE if sign in problem), None)
    return SuiteError(f"{name}:{line}: not YAML: {problem}{where}{after}", hint=advice)


def _tab_indents(text: str, line: int) -> bool:
    written = "".join(text.splitlines()[line - 1 : line])
    return "\t" in written[: len(written) - len(written.lstrip())]
